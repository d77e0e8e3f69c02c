//! Free ports that stay ours while a server is down.
//!
//! A server that is restarted must find its port free, so ports come from below the range that the
//! kernel hands to outgoing connections, and a lock on a file reserves each among all processes of
//! this machine for as long as its handle lives.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};

const FIRST: u16 = 12_000;
const COUNT: u16 = 18_000;
const TRIES: u32 = 1_000;

/// A port on 127.0.0.1 that no other handle has, in any process.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// Held until the handle is dropped; the kernel lets go of it when the process ends.
    _lock: Option<File>,
}

impl Port {
    /// Any free port.
    pub fn reserve() -> std::io::Result<Self> {
        let folder = std::env::temp_dir().join("stormwire-ports");
        std::fs::create_dir_all(&folder)?;
        for _ in 0..TRIES {
            let number = FIRST + rand::random::<u16>() % COUNT;
            let lock = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(folder.join(number.to_string()));
            let Ok(lock) = lock else { continue };
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { number, _lock: Some(lock) });
            }
        }
        Err(std::io::Error::other("no free port between 12000 and 29999"))
    }

    /// This very port, without asking whether it is free.
    pub fn fixed(number: u16) -> Self {
        Self { number, _lock: None }
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_two_handles_have_one_port() {
        let ports: Vec<Port> = (0..100).map(|_| Port::reserve().unwrap()).collect();
        let numbers: HashSet<u16> = ports.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), 100);
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_not_given() {
        let port = Port::reserve().unwrap();
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).unwrap();
        let number = port.number();
        drop(port);
        assert!((0..50).all(|_| Port::reserve().unwrap().number() != number));
    }
}
