//! Histories in a folder: `archive.jsonl`, `producer-*.jsonl`, `subscriber-*.jsonl`.

use crate::checker::Checker;
use crate::evidence::Evidence;
use crate::history::{ProducerRecord, Row, SubscriberRecord};
use crate::verdict::{Verdict, Violation};
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

/// Why a folder can't be judged.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {why}")]
pub struct FolderError {
    path: String,
    why: String,
}

impl FolderError {
    fn new(path: &Path, why: impl std::fmt::Display) -> Self {
        Self { path: path.display().to_string(), why: why.to_string() }
    }
}

const ARCHIVE: &str = "archive.jsonl";

/// Judges the histories of a folder.
///
/// # Errors
/// A file can't be read, is no history, or contradicts itself.
pub fn check(folder: &Path) -> Result<Verdict, FolderError> {
    let mut checker = Checker::new();
    each_line(&folder.join(ARCHIVE), |row: Row| {
        checker.archived(&row);
        Ok(())
    })?;
    checker.seal();
    for (name, path) in files(folder, "producer-")? {
        let mut producer = checker.producer(&name);
        each_line(&path, |record: ProducerRecord| {
            producer.take(&record).map_err(|error| error.to_string())
        })?;
        producer.finish();
    }
    for (name, path) in files(folder, "subscriber-")? {
        let mut feed = checker.subscriber(&name);
        each_line(&path, |record: SubscriberRecord| {
            feed.take(&record);
            Ok(())
        })?;
    }
    checker.finish().map_err(|error| FolderError::new(folder, error))
}

/// Reads the folder again and tells one violation as an example: who sent, was told and saw what, and
/// when.
///
/// # Errors
/// A file can't be read.
pub fn explain(folder: &Path, violation: &Violation) -> Result<String, FolderError> {
    let mut evidence = Evidence::new(violation);
    each_line(&folder.join(ARCHIVE), |row: Row| {
        evidence.archived(&row);
        Ok(())
    })?;
    for (name, path) in files(folder, "producer-")? {
        each_line(&path, |record: ProducerRecord| {
            evidence.producer(&name, &record);
            Ok(())
        })?;
    }
    for (name, path) in files(folder, "subscriber-")? {
        each_line(&path, |record: SubscriberRecord| {
            evidence.subscriber(&name, &record);
            Ok(())
        })?;
    }
    Ok(evidence.text())
}

/// The files whose name begins so, with what follows it, sorted.
fn files(folder: &Path, prefix: &str) -> Result<Vec<(String, PathBuf)>, FolderError> {
    let entries = std::fs::read_dir(folder).map_err(|error| FolderError::new(folder, error))?;
    let mut files: Vec<(String, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let name = name.strip_prefix(prefix)?.strip_suffix(".jsonl")?.to_owned();
            Some((name, entry.path()))
        })
        .collect();
    files.sort();
    Ok(files)
}

fn each_line<T: DeserializeOwned>(
    path: &Path,
    mut take: impl FnMut(T) -> Result<(), String>,
) -> Result<(), FolderError> {
    let file = File::open(path).map_err(|error| FolderError::new(path, error))?;
    for (number, line) in (1..).zip(BufReader::new(file).lines()) {
        let at = |why: String| FolderError::new(path, format!("line {number}: {why}"));
        let line = line.map_err(|error| at(error.to_string()))?;
        let record = serde_json::from_str(&line).map_err(|error| at(error.to_string()))?;
        take(record).map_err(at)?;
    }
    Ok(())
}
