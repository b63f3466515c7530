//! Names for what differs between platforms.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    cfg_aliases::cfg_aliases! {
        // Programs are spawned by `clone`, with code of ours in the child, and known by pidfds. Elsewhere
        // `posix_spawn` does it, which `--cfg exile_portable` chooses on Linux, for tests.
        by_clone: { all(target_os = "linux", not(exile_portable)) },
        // Descriptors are waited for by `poll`.
        by_poll: { exile_portable },
    }
}
