//! Signals by name and by number.

use nix::sys::signal::Signal as Known;

/// The largest number of a signal that a program can be sent.
#[cfg(target_os = "linux")]
const LAST: i32 = 64;
#[cfg(not(target_os = "linux"))]
const LAST: i32 = 31;

/// A signal of this system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(i32);

impl Signal {
    /// Ends a program and cannot be refused.
    pub const KILL: Signal = Signal(libc::SIGKILL);
    /// Asks a program to end.
    pub const TERM: Signal = Signal(libc::SIGTERM);
    /// Lets a stopped program go on.
    pub const CONT: Signal = Signal(libc::SIGCONT);
    /// Not a signal: asks whether one could be sent.
    pub(crate) const NONE: Signal = Signal(0);

    /// The signal called `name` in small letters, like `"sigterm"`.
    pub fn from_name(name: &str) -> Option<Signal> {
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return None;
        }
        name.to_ascii_uppercase()
            .parse::<Known>()
            .ok()
            .map(|known| Signal(known as i32))
    }

    /// The signal with this number on this system; real-time signals have no name.
    pub fn from_number(number: i32) -> Option<Signal> {
        (1..=LAST).contains(&number).then_some(Signal(number))
    }

    /// The name of a signal in small letters; `None` where it has none, as a real-time signal.
    pub fn name_of(number: u8) -> Option<String> {
        let known = Known::try_from(i32::from(number)).ok()?;
        Some(known.as_str().to_ascii_lowercase())
    }

    /// Its number on this system.
    pub const fn number(self) -> i32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_signal_is_found_by_its_name_in_small_letters() {
        for known in Known::iterator() {
            let name = known.as_str().to_ascii_lowercase();
            assert_eq!(Signal::from_name(&name), Some(Signal(known as i32)));
            assert_eq!(Signal::name_of(known as u8), Some(name));
            assert_eq!(
                Signal::from_number(known as i32),
                Some(Signal(known as i32))
            );
        }
    }

    #[test]
    fn anything_else_is_no_signal() {
        for name in ["", "term", "SIGTERM", "sigfoo", "9", "sigterm "] {
            assert_eq!(Signal::from_name(name), None, "{name:?}");
        }
        for number in [0, 127] {
            assert_eq!(Signal::name_of(number), None);
            assert_eq!(Signal::from_number(i32::from(number)), None);
        }
    }
}
