//! What a million producers take in the tables of sixteen partitions, by the system's own count:
//! `cargo run -p stormwire-journal --example repeats_memory [producers] [publishes of each]`.
//!
//! Every producer is another user's, and no two of its publishes merge into one range: the worst case.

#![expect(clippy::print_stdout, reason = "an example prints its figures")]
#![expect(clippy::unwrap_used, reason = "an example may panic")]

use std::time::Instant;
use stormwire_core::{Offset, Timestamp};
use stormwire_journal::publish::ProducerKey;
use stormwire_journal::repeats::Repeats;
use stormwire_wire::frame::FrameId;

const PARTITIONS: u64 = 16;
const MIB: f64 = 1024.0 * 1024.0;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number =
        |default: u64| arguments.next().map_or(default, |text| text.parse().expect("a number"));
    let (producers, publishes) = (number(1_000_000), number(8));
    let before = resident();
    let began = Instant::now();
    let tables: Vec<Repeats> = (0..PARTITIONS)
        .map(|partition| table(partition, producers / PARTITIONS, publishes))
        .collect();
    let filled = began.elapsed();
    let took = resident() - before;
    let known: usize = tables.iter().map(Repeats::len).sum();
    let counted: usize = tables.iter().map(Repeats::bytes).sum();
    println!("{known} producers of {publishes} publishes each, filled in {filled:.1?}");
    println!("resident: {:.1} MiB, {} bytes a producer", mib(took), took / known as u64);
    println!("by the table's own count: {:.1} MiB", mib(counted as u64));
    let began = Instant::now();
    let id = FrameId { appender: [1; 16], counter: 1 };
    let image = tables[0].image(id);
    let made = began.elapsed();
    let began = Instant::now();
    let (read, _) = Repeats::from_image(&image, usize::MAX).unwrap();
    let back = began.elapsed();
    assert_eq!(read.len(), tables[0].len());
    let size = mib(image.len() as u64);
    println!("one partition's image: {size:.2} MiB, made in {made:.1?}, read in {back:.1?}");
}

fn table(partition: u64, producers: u64, publishes: u64) -> Repeats {
    let mut repeats = Repeats::new(Timestamp(0), usize::MAX);
    for publish in 0..publishes {
        for n in 0..producers {
            let key = ProducerKey::of(&format!("user {partition} {n}"), "p");
            let offset = Offset((publish * 100_000 + n) * 4096);
            repeats.replay(key, 1 + publish * 16, 1, offset, Timestamp(1_000_000));
        }
    }
    repeats
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
    let kib = line.split_whitespace().nth(1).expect("a number");
    kib.parse::<u64>().expect("a number") * 1024
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / MIB
}
