//! Linker arguments of the library.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The reaper is a thread of this library: unmapping the library would pull the code from
    // under it, so it stays even when the VM unloads the module.
    let target = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    if target != "macos" && target != "ios" {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
