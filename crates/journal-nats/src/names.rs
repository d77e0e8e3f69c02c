//! The names of streams and subjects: the one place that knows their form.

use stormwire_core::{Epoch, Partition};

/// Heartbeats of gateways.
pub(crate) const BEAT: &str = "storm.beat";

/// The durable consumer of each stream that shows its backlog.
pub(crate) const PERSIST_CONSUMER: &str = "persist";

/// The stream of the appenders' tables.
pub(crate) const TABLES: &str = "STORM_TABLES";
/// All its subjects.
pub(crate) const TABLES_SUBJECTS: &str = "storm.table.>";

/// Where a partition's manifest is: which of its saved tables counts.
pub(crate) fn table(partition: Partition) -> String {
    format!("storm.table.{partition}")
}

/// Where chunk `at` of a table is, in one of two slots.
pub(crate) fn table_chunk(partition: Partition, slot: u8, at: usize) -> String {
    format!("storm.table.{partition}.{slot}.{at}")
}

/// The stream of a partition's epoch.
pub(crate) fn stream(partition: Partition, epoch: Epoch) -> String {
    format!("STORM_{partition}_{epoch}")
}

/// The partition and epoch of a stream; `None` if it is not one of ours.
pub(crate) fn parse_stream(name: &str) -> Option<(Partition, Epoch)> {
    let (partition, epoch) = name.strip_prefix("STORM_")?.split_once('_')?;
    Some((Partition(partition.parse().ok()?), Epoch(epoch.parse().ok()?)))
}

/// The one subject of that stream.
pub(crate) fn events(partition: Partition, epoch: Epoch) -> String {
    format!("storm.events.{partition}.{epoch}")
}

/// That subject in every epoch of the partition.
pub(crate) fn events_of_all_epochs(partition: Partition) -> String {
    format!("storm.events.{partition}.*")
}

/// Where stored frames are republished.
pub(crate) fn live(partition: Partition, epoch: Epoch) -> String {
    format!("storm.live.{partition}.{epoch}")
}

/// That subject in every epoch of the partition.
pub(crate) fn live_of_all_epochs(partition: Partition) -> String {
    format!("storm.live.{partition}.*")
}

/// The epoch of a live subject; `None` if it is not one.
pub(crate) fn epoch_of_live(subject: &str) -> Option<Epoch> {
    subject.strip_prefix("storm.live.")?.split_once('.')?.1.parse().ok().map(Epoch)
}

/// What is told to the subscribers of a partition's channels and not stored.
pub(crate) fn signal(partition: Partition) -> String {
    format!("storm.signal.{partition}")
}

/// Where `gateway` hears requests about `partition`.
pub(crate) fn ask(gateway: &str, partition: Partition) -> String {
    format!("storm.append.{}.{partition}", token(gateway))
}

/// Where `gateway` hears requests about any partition.
pub(crate) fn ask_any(gateway: &str) -> String {
    format!("storm.append.{}.*", token(gateway))
}

/// The partition in a subject made by [`ask`].
pub(crate) fn partition_of_ask(subject: &str) -> Option<Partition> {
    subject.rsplit_once('.')?.1.parse().ok().map(Partition)
}

/// `name` as one token of a subject: what has a meaning there (dots, wildcards, blanks, and `=` itself)
/// becomes `=` and two hexadecimal digits a byte, so that different names stay different.
fn token(name: &str) -> String {
    let mut token = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            token.push(char::from(byte));
        } else {
            token.push_str(&format!("={byte:02x}"));
        }
    }
    token
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_can_be_read_back() {
        let (partition, epoch) = (Partition(12), Epoch(3));
        assert_eq!(parse_stream(&stream(partition, epoch)), Some((partition, epoch)));
        assert_eq!(epoch_of_live(&live(partition, epoch)), Some(epoch));
        assert_eq!(partition_of_ask(&ask("gw-1", partition)), Some(partition));
    }

    #[test]
    fn names_of_others_are_not_ours() {
        for name in
            ["STORM_", "STORM_1", TABLES, "STORM_x_1", "STORM_1_1_1", "ORDERS_1_1", "STORM_99999_1"]
        {
            assert_eq!(parse_stream(name), None, "{name}");
        }
        assert_eq!(epoch_of_live("storm.live.3"), None);
        assert_eq!(epoch_of_live("storm.events.3.1"), None);
    }

    #[test]
    fn any_gateway_name_is_one_token_and_stays_itself() {
        assert_eq!(
            ask("gateway-0.storm.svc", Partition(1)),
            "storm.append.gateway-0=2estorm=2esvc.1"
        );
        assert_eq!(ask_any("a b*>"), "storm.append.a=20b=2a=3e.*");
        assert_ne!(ask_any("a.b"), ask_any("a=2eb"));
    }
}
