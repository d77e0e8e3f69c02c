//! Lost packets: an address that the kernel's routes lead nowhere for a while, where this process may
//! change routes.
//!
//! A proxy that holds bytes back has still taken them: the sender's kernel believes them delivered.
//! Here no segment arrives, none is acknowledged and none is refused; the kernel sends again and again.

use crate::{Failure, Outcome};
use std::net::Ipv4Addr;
use std::process::Command;

/// The loopback network has room for an address of each port.
pub(crate) fn address_of(port: u16) -> Ipv4Addr {
    let [high, low] = port.to_be_bytes();
    Ipv4Addr::new(127, 77, high, low)
}

/// An address that no packet reaches until it is dropped.
#[derive(Debug)]
pub(crate) struct BlackHole {
    address: Ipv4Addr,
    sent_again: u64,
}

impl BlackHole {
    /// Leads every packet to `address` nowhere.
    pub(crate) fn open(address: Ipv4Addr) -> Outcome<Self> {
        let sent_again = sent_again()?;
        let output = route("add", address).output().map_err(Failure::doing("ip route"))?;
        if output.status.success() {
            return Ok(Self { address, sent_again });
        }
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Failure::Skipped(format!("routes can't be changed here: {why}")))
    }

    /// Whether the kernel has sent segments again since it was opened, as it does where they are lost.
    pub(crate) fn lost_some(&self) -> bool {
        sent_again().is_ok_and(|now| now > self.sent_again)
    }
}

impl Drop for BlackHole {
    fn drop(&mut self) {
        let _ = route("del", self.address).status();
    }
}

/// Before the route that makes all of 127.0.0.0/8 local, which lies in the same table.
fn route(verb: &str, address: Ipv4Addr) -> Command {
    let mut route = Command::new("ip");
    route.args(["route", verb, "blackhole", &format!("{address}/32"), "table", "local"]);
    route
}

/// Segments that this machine's kernel has sent again (`RetransSegs` of RFC 4022's counters).
fn sent_again() -> Outcome<u64> {
    let path = "/proc/net/snmp";
    let text = std::fs::read_to_string(path).map_err(Failure::doing(path))?;
    counted(&text).ok_or_else(|| Failure::of(format!("{path} has no RetransSegs")))
}

/// The file has a line of names and a line of numbers for each protocol.
fn counted(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with("Tcp:"));
    let column = lines.next()?.split_whitespace().position(|name| name == "RetransSegs")?;
    lines.next()?.split_whitespace().nth(column)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn the_counter_is_found_by_its_name() {
        let text = "Ip: Forwarding\nIp: 1\nTcp: RtoMin InSegs RetransSegs\nTcp: 200 7 42\n";
        assert_eq!(counted(text), Some(42));
        assert_eq!(counted("Tcp: RtoMin\nTcp: 200\n"), None);
    }
}
