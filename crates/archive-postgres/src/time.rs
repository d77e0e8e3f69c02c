//! Our milliseconds as Postgres' `timestamptz`, exactly and without a calendar.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgTypeInfo, PgValueFormat, PgValueRef, Postgres};
use stormwire_core::Timestamp;

/// 2000-01-01 in Unix milliseconds: where Postgres counts from.
const POSTGRES_EPOCH_MS: i64 = 946_684_800_000;
/// 0001-01-01 and 9999-12-31: what lies outside is stored as the nearer end, since not every tool reads more.
const MS_MIN: i64 = -62_135_596_800_000;
const MS_MAX: i64 = 253_402_214_400_000;

/// A time as it is bound to and read from a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PgTime(pub(crate) Timestamp);

/// The number that stands for `at` in binary rows: microseconds since 2000.
pub(crate) fn micros(at: Timestamp) -> i64 {
    (clamp(at).0 - POSTGRES_EPOCH_MS) * 1000
}

/// `at`, moved into the years that the archive holds.
pub(crate) fn clamp(at: Timestamp) -> Timestamp {
    Timestamp(at.0.clamp(MS_MIN, MS_MAX))
}

impl sqlx::Type<Postgres> for PgTime {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("timestamptz")
    }
}

impl sqlx::Encode<'_, Postgres> for PgTime {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend_from_slice(&micros(self.0).to_be_bytes());
        Ok(IsNull::No)
    }
}

impl sqlx::Decode<'_, Postgres> for PgTime {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        if value.format() != PgValueFormat::Binary {
            return Err("a time was answered as text".into());
        }
        let micros = i64::from_be_bytes(value.as_bytes()?.try_into()?);
        let ms = micros.div_euclid(1000).saturating_add(POSTGRES_EPOCH_MS);
        Ok(Self(Timestamp(ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_year_2000_is_zero_and_the_ends_are_held() {
        assert_eq!(micros(Timestamp(POSTGRES_EPOCH_MS)), 0);
        assert_eq!(micros(Timestamp(POSTGRES_EPOCH_MS - 1)), -1000);
        assert_eq!(micros(Timestamp(i64::MAX)), (MS_MAX - POSTGRES_EPOCH_MS) * 1000);
        assert_eq!(clamp(Timestamp(i64::MIN)), Timestamp(MS_MIN));
    }
}
