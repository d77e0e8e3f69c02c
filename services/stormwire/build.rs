//! Takes the web app into the program: what `cargo xtask clients app` has built in `clients/web/dist`, or
//! else the one plain page in `app/`, which needs nothing but a browser.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let built = root.join("../../clients/web/dist");
    let plain = root.join("app");
    for folder in [&built, &plain] {
        if folder.is_dir() {
            println!("cargo::rerun-if-changed={}", folder.display());
        }
    }
    let source = if built.join("index.html").is_file() { built } else { plain };
    let mut files = Vec::new();
    walk(&source, &mut files)?;
    files.sort();
    let mut table =
        "/// Every file of the app by its path.\npub(crate) const FILES: &[(&str, &[u8])] = &[\n"
            .to_owned();
    for file in files {
        let name = file.strip_prefix(&source).unwrap_or(&file).to_string_lossy().replace('\\', "/");
        let _ = writeln!(table, "    ({name:?}, include_bytes!({:?})),", file.canonicalize()?);
    }
    table.push_str("];\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    fs::write(out.join("app_files.rs"), table)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_hidden =
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if is_hidden {
            continue;
        }
        if path.is_dir() {
            walk(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
