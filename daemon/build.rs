//! Finds the BPF object that `dormoused` carries inside, and says what to run when it is not built yet.

use std::{env, path::PathBuf};

fn main() {
    println!("cargo::rerun-if-env-changed=DORMOUSE_BPF_OBJECT");
    let object = env::var_os("DORMOUSE_BPF_OBJECT").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/dormouse.o"),
        PathBuf::from,
    );
    println!("cargo::rerun-if-changed={}", object.display());
    match object.canonicalize() {
        Ok(path) => println!("cargo::rustc-env=DORMOUSE_BPF_OBJECT_FILE={}", path.display()),
        Err(error) => println!(
            "cargo::error=the BPF object {} is not there ({error}): run scripts/build-ebpf first, or name an object \
             with DORMOUSE_BPF_OBJECT",
            object.display()
        ),
    }
}
