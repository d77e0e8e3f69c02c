//! How many connections an address holds, and how fast one connection asks.

use crate::OwnLimits;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use stormwire_core::{ErrorCode, Refusal};

/// How long somebody at the bound should wait: until another connection may have closed.
const COME_BACK_AFTER: Duration = Duration::from_secs(5);

/// Counts the connections of this process by address. As many entries as addresses are connected.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    by_ip: Mutex<HashMap<IpAddr, u32>>,
}

/// One connection's place among those of its address, given back when dropped, and its own speed limit.
pub struct Connection {
    connections: Arc<Connections>,
    ip: IpAddr,
    operations_max: NonZeroU32,
    operations: DefaultDirectRateLimiter,
    signals_max: NonZeroU32,
    signals: DefaultDirectRateLimiter,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("ip", &self.ip).finish_non_exhaustive()
    }
}

impl Connections {
    pub(crate) fn open(
        connections: &Arc<Self>,
        ip: IpAddr,
        connections_max: u32,
        (operations_max, signals_max): (NonZeroU32, NonZeroU32),
    ) -> Result<Connection, Refusal> {
        let mut by_ip = connections.by_ip.lock();
        let held = by_ip.entry(ip).or_default();
        if *held >= connections_max {
            if *held == 0 {
                by_ip.remove(&ip);
            }
            let message =
                format!("this address holds {connections_max} connections, the most it may");
            return Err(Refusal::new(ErrorCode::Limited, message).retry_after(COME_BACK_AFTER));
        }
        *held += 1;
        drop(by_ip);
        let operations = RateLimiter::direct(Quota::per_second(operations_max));
        let signals = RateLimiter::direct(Quota::per_second(signals_max));
        let connections = Arc::clone(connections);
        Ok(Connection { connections, ip, operations_max, operations, signals_max, signals })
    }
}

impl Connection {
    /// Counts one operation of any kind.
    ///
    /// # Errors
    /// `limited`, if this connection asks faster than any may.
    pub fn operation(&self, limits: Option<&OwnLimits>) -> Result<(), Refusal> {
        if limits.is_some_and(|own| own.unlimited) || self.operations.check().is_ok() {
            return Ok(());
        }
        let message = format!("{} operations a second for one connection", self.operations_max);
        Err(Refusal::new(ErrorCode::Limited, message).retry_after(Duration::from_millis(250)))
    }

    /// Counts one signal, apart from other operations.
    ///
    /// # Errors
    /// `limited`, if this connection signals faster than any may.
    pub fn signal(&self, limits: Option<&OwnLimits>) -> Result<(), Refusal> {
        if limits.is_some_and(|own| own.unlimited) || self.signals.check().is_ok() {
            return Ok(());
        }
        let message = format!("{} signals a second for one connection", self.signals_max);
        Err(Refusal::new(ErrorCode::Limited, message).retry_after(Duration::from_millis(250)))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut by_ip = self.connections.by_ip.lock();
        if let Some(held) = by_ip.get_mut(&self.ip) {
            *held -= 1;
            if *held == 0 {
                by_ip.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const ONE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const SLOW: (NonZeroU32, NonZeroU32) = (NonZeroU32::MIN, NonZeroU32::MIN);
    const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::BROADCAST);

    #[test]
    fn an_address_holds_so_many_connections_and_no_more() {
        let connections = Arc::new(Connections::default());
        let open = |ip| Connections::open(&connections, ip, 2, SLOW);
        let first = open(ONE).unwrap();
        let _second = open(ONE).unwrap();
        let refusal = open(ONE).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::Limited);
        assert!(refusal.retry_after.is_some());
        drop(open(OTHER).unwrap());
        drop(first);
        assert!(open(ONE).is_ok());
        assert!(Connections::open(&connections, OTHER, 0, SLOW).is_err());
        assert_eq!(connections.by_ip.lock().len(), 1, "only addresses that are connected are kept");
    }

    #[test]
    fn one_connection_asks_only_so_fast() {
        let connections = Arc::new(Connections::default());
        let speed = (NonZeroU32::new(5).unwrap(), NonZeroU32::new(3).unwrap());
        let connection = Connections::open(&connections, ONE, 1, speed).unwrap();
        let admitted = (0..100).filter(|_| connection.operation(None).is_ok()).count();
        assert!((5..10).contains(&admitted), "{admitted}");
        let signals = (0..100).filter(|_| connection.signal(None).is_ok()).count();
        assert!((3..8).contains(&signals), "signals are counted apart: {signals}");
        assert!(connection.signal(None).unwrap_err().message.contains("3 signals"));
        let unlimited = OwnLimits { unlimited: true, ..OwnLimits::default() };
        assert!((0..100).all(|_| connection.operation(Some(&unlimited)).is_ok()));
        assert!(connection.operation(None).unwrap_err().message.contains("5 operations"));
    }
}
