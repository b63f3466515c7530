//! Linker arguments of the library.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The library has threads of its own. Were it unmapped, they would have no code to run, so it
    // stays even when the VM unloads the module.
    let target = std::env::var("CARGO_CFG_TARGET_OS").unwrap_or_default();
    if target != "macos" && target != "ios" {
        println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
    }
}
