//! The task of one partition that hears what gateways say to each other's subscribers.

use super::{Part, Shared};
use bytes::Bytes;
use futures::StreamExt as _;
use std::sync::Arc;
use std::time::Duration;
use stormwire_presence::Message;
use stormwire_telemetry::Quiet;
use tokio_util::sync::CancellationToken;

const RETRY: Duration = Duration::from_millis(200);
/// How long a partition is listened to after the last of its subscribers has gone.
const LINGER: Duration = Duration::from_secs(10);
static DEAF: Quiet = Quiet::new(Duration::from_secs(10));
static BROKEN: Quiet = Quiet::new(Duration::from_secs(10));

/// Runs until `stop`. The partition is listened to only while somebody here is subscribed in it.
pub(super) async fn run(shared: Arc<Shared>, at: usize, stop: CancellationToken) {
    let part = &shared.parts[at];
    let hear = async {
        loop {
            while part.audience.lock().is_empty() {
                part.wanted.notified().await;
            }
            match shared.signals.listen(part.partition).await {
                Ok(mut stream) => {
                    part.ears.send_replace(true);
                    listen(&shared, part, &mut stream).await;
                }
                Err(error) => {
                    if let Some(suppressed) = DEAF.ready() {
                        tracing::warn!(%error, suppressed, "signals are not heard");
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    };
    stop.run_until_cancelled(hear).await;
}

/// Hears until the stream ends or nobody has been subscribed for a while.
async fn listen(
    shared: &Shared,
    part: &Part,
    stream: &mut (impl futures::Stream<Item = Bytes> + Unpin),
) {
    let mut idle = tokio::time::interval(LINGER);
    idle.reset();
    loop {
        tokio::select! {
            message = stream.next() => match message {
                Some(message) => take(shared, part, message),
                None => {
                    part.ears.send_replace(false);
                    return;
                }
            },
            _ = idle.tick() => {
                let audience = part.audience.lock();
                if audience.is_empty() {
                    // Under the lock: who subscribes next finds the ears closed and waits for them.
                    part.ears.send_replace(false);
                    return;
                }
            }
        }
    }
}

fn take(shared: &Shared, part: &Part, message: Bytes) {
    match Message::decode(message) {
        Ok(Message::Signal(signal)) => {
            let own = signal.sender.process == shared.process;
            part.audience.lock().signal(&signal, own.then_some(signal.sender.connection));
        }
        Ok(Message::Changed { process, .. }) if process == shared.process => {}
        Ok(Message::Changed { channels, .. }) => {
            let mut audience = part.audience.lock();
            let wanted = channels.iter().filter(|channel| audience.changed(channel)).count();
            drop(audience);
            if wanted > 0 {
                part.work.notify_one();
            }
        }
        Err(error) => {
            if let Some(suppressed) = BROKEN.ready() {
                tracing::warn!(%error, suppressed, "skipped a message between gateways");
            }
        }
    }
}
