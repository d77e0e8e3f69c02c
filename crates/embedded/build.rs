//! Builds again when a migration is added: the macro that takes them in sees only those it knew.

#[expect(clippy::print_stdout, reason = "how a build script speaks to cargo")]
fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
