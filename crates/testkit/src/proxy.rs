//! A network that can be spoilt: a TCP proxy between a client and a server.
//!
//! It can be cut (connections are reset and new ones refused), made slow, or made half-open: bytes
//! are taken or not, nothing is passed on, and nobody is told, as behind a firewall that forgot.

mod messages;

use crate::ports::Port;
use messages::{Loss, Messages};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const BUFFER_BYTES: usize = 64 * 1024;

/// What becomes of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// They pass.
    Healthy,
    /// They pass, each read this much later, in order.
    Slow(Duration),
    /// Connections are reset, new ones at once after they were accepted.
    Cut,
    /// Connections stay open and nothing passes in either direction.
    HalfOpen,
    /// What the client sends passes; what the server answers waits.
    AnswersLost,
    /// Of a NATS server's live messages some are left out, and nobody is told; all else passes. Before
    /// another server nothing is.
    Forgetful,
    /// Of the frames that a NATS server sends, live or read, the third is left out on each connection, and
    /// nobody is told; all else passes. Each number loses one.
    OneLost(u32),
}

/// A proxy on a port of its own. Its connections end when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    _port: Port,
    address: SocketAddr,
    target: SocketAddr,
    network: watch::Sender<Network>,
    spoilt: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Stands before `target`.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn start(target: SocketAddr) -> std::io::Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST.into(), target).await
    }

    /// Stands before `target` at an address of the loopback network, which may be taken away alone.
    ///
    /// # Errors
    /// There is no free port, or the machine has no such address.
    pub async fn start_at(host: IpAddr, target: SocketAddr) -> std::io::Result<Self> {
        let port = Port::reserve()?;
        let listener = TcpListener::bind((host, port.number())).await?;
        let address = listener.local_addr()?;
        let (network, watched) = watch::channel(Network::Healthy);
        let spoilt = Arc::new(AtomicU64::new(0));
        let accepting = tokio::spawn(accept(listener, target, watched, Arc::clone(&spoilt)));
        Ok(Self { _port: port, address, target, network, spoilt, accepting })
    }

    /// How often it did what a healthy network does not: reset or refused a connection, held bytes back
    /// or passed them late.
    pub fn spoilt(&self) -> u64 {
        self.spoilt.load(Ordering::Relaxed)
    }

    /// The address for clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address that it stands before.
    pub fn target(&self) -> SocketAddr {
        self.target
    }

    /// Changes the network from now on, for open connections too.
    pub fn set(&self, network: Network) {
        self.network.send_replace(network);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.network.send_replace(Network::Cut);
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    network: watch::Receiver<Network>,
    spoilt: Arc<AtomicU64>,
) {
    while let Ok((client, _)) = listener.accept().await {
        let (network, spoilt) = (network.clone(), Arc::clone(&spoilt));
        tokio::spawn(async move {
            if *network.borrow() == Network::Cut {
                spoilt.fetch_add(1, Ordering::Relaxed);
                reset(client);
                return;
            }
            if let Ok(server) = TcpStream::connect(target).await {
                join(client, server, network, &spoilt).await;
            }
        });
    }
}

async fn join(
    client: TcpStream,
    server: TcpStream,
    network: watch::Receiver<Network>,
    spoilt: &AtomicU64,
) {
    // Without a delay of its own, or small messages would wait for each other.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    // Reset instead of closed in good order when the network is cut.
    let _ = (client.set_zero_linger(), server.set_zero_linger());
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut watched = network.clone();
    let cut = watched.wait_for(|now| *now == Network::Cut);
    let questions = pass(from_client, to_server, network.clone(), (false, spoilt));
    let answers = pass(from_server, to_client, network.clone(), (true, spoilt));
    tokio::select! {
        _ = cut => drop(spoilt.fetch_add(1, Ordering::Relaxed)),
        _ = async { tokio::join!(questions, answers) } => {}
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut network: watch::Receiver<Network>,
    (answers, spoilt): (bool, &AtomicU64),
) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    // A NATS server greets first.
    let (mut is_nats, mut messages, mut kept) = (None, Messages::default(), Vec::new());
    loop {
        let read = from.read(&mut buffer).await?;
        let passes = |now: &Network| match now {
            Network::Healthy | Network::Slow(_) | Network::Forgetful | Network::OneLost(_) => true,
            Network::AnswersLost => !answers,
            Network::Cut | Network::HalfOpen => false,
        };
        let passes_as_ever = matches!(
            *network.borrow(),
            Network::Healthy | Network::Forgetful | Network::OneLost(_)
        );
        spoilt.fetch_add(u64::from(!passes_as_ever), Ordering::Relaxed);
        let now = network.wait_for(passes).await.map(|now| *now).map_err(std::io::Error::other)?;
        if let Network::Slow(delay) = now {
            tokio::time::sleep(delay).await;
        }
        if read == 0 {
            return to.shutdown().await;
        }
        let read = &buffer[..read];
        if answers && is_nats.get_or_insert_with(|| read.starts_with(b"INFO ")) == &true {
            kept.clear();
            let loss = match now {
                Network::Forgetful => Loss::OneOfFourLive,
                Network::OneLost(number) => Loss::ThirdFrame(number),
                _ => Loss::None,
            };
            let lost = messages.pass(read, loss, &mut kept);
            spoilt.fetch_add(lost, Ordering::Relaxed);
            to.write_all(&kept).await?;
        } else {
            to.write_all(read).await?;
        }
    }
}

fn reset(socket: TcpStream) {
    let _ = socket.set_zero_linger();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// A server that says back what it hears.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = socket.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        address
    }

    async fn say(socket: &mut TcpStream) -> std::io::Result<()> {
        socket.write_all(b"hello").await?;
        let mut answer = [0; 5];
        socket.read_exact(&mut answer).await.map(|_| assert_eq!(&answer, b"hello"))
    }

    #[tokio::test]
    async fn a_healthy_network_passes_bytes_and_the_end() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
        say(&mut socket).await.unwrap();
        assert_eq!(proxy.spoilt(), 0);
        socket.shutdown().await.unwrap();
        assert_eq!(socket.read(&mut [0; 1]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_slow_network_takes_its_time_both_ways() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
        proxy.set(Network::Slow(Duration::from_millis(50)));
        let started = Instant::now();
        say(&mut socket).await.unwrap();
        assert!(started.elapsed() >= Duration::from_millis(100));
        assert!(proxy.spoilt() >= 2);
    }

    #[tokio::test]
    async fn a_cut_resets_old_connections_and_new_ones_until_it_is_healed() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
        say(&mut socket).await.unwrap();
        proxy.set(Network::Cut);
        assert!(say(&mut socket).await.is_err());
        let mut late = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(say(&mut late).await.is_err());
        assert!(proxy.spoilt() >= 2);
        proxy.set(Network::Healthy);
        let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
        say(&mut socket).await.unwrap();
    }

    #[tokio::test]
    async fn a_half_open_network_is_silent_and_late_bytes_come_when_it_is_healed() {
        for network in [Network::HalfOpen, Network::AnswersLost] {
            let proxy = Proxy::start(echo().await).await.unwrap();
            let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
            proxy.set(network);
            socket.write_all(b"hello").await.unwrap();
            let mut answer = [0; 5];
            let silent =
                tokio::time::timeout(Duration::from_millis(100), socket.read_exact(&mut answer));
            assert!(silent.await.is_err());
            proxy.set(Network::Healthy);
            socket.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"hello");
        }
    }
}
