//! What is written beside the code says what the code does: the .proto file and the structs, the table
//! of errors, the AsyncAPI description. `UPDATE_DOCS=1` writes the documents anew.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod asyncapi;
mod errors;
mod proto_file;
mod yaml;

use std::path::PathBuf;

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Compares a document with what the code says, or writes it.
fn document(path: &str, due: &str) {
    let file = repository().join(path);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, due).unwrap();
    }
    let found = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        found == due,
        "{path} is not what the code says; write it anew with UPDATE_DOCS=1 cargo test -p stormwire-wire"
    );
}

#[test]
fn the_table_of_errors_is_the_code() {
    document("docs/errors.md", &errors::markdown());
}

#[test]
fn the_description_of_the_protocol_is_the_code() {
    document("docs/asyncapi.yaml", &asyncapi::text());
}

#[test]
fn the_proto_file_and_the_structs_say_the_same() {
    let file = proto_file::messages();
    let structs = proto_file::structs();
    assert!(file.len() > 30);
    for (name, fields) in &file {
        assert_eq!(structs.get(name), Some(fields), "message {name}");
    }
    for name in structs.keys() {
        assert!(file.contains_key(name), "the struct {name} is in no .proto");
    }
}
