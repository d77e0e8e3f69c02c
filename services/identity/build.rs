//! Builds again when a migration is added: the macro that takes them in sees only those it knew.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
