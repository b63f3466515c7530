//! How a program ended.

/// The end of a program. Learned once and then kept by its [`Child`](crate::Child).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It called `exit` with this code.
    Exited(u8),
    /// A signal ended it.
    Signaled {
        /// The number of the signal.
        signal: u8,
        /// Whether a core was dumped.
        core: bool,
    },
    /// It is gone, and the system will not say how, because other code in this process took the
    /// status. It never counts as a success.
    Unknown,
}

impl Status {
    /// The status from the raw number of `wait(2)`.
    pub(crate) fn from_wait(raw: i32) -> Status {
        if libc::WIFSIGNALED(raw) {
            Status::Signaled {
                signal: (raw & 0x7f) as u8,
                core: libc::WCOREDUMP(raw),
            }
        } else {
            Status::Exited(libc::WEXITSTATUS(raw) as u8)
        }
    }

    /// The number a shell would show in `$?`: the exit code, or 128 plus the signal.
    pub fn code(self) -> Option<u8> {
        match self {
            Status::Exited(code) => Some(code),
            Status::Signaled { signal, .. } => Some(128 + signal),
            Status::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_the_second_byte() {
        assert_eq!(Status::from_wait(42 << 8), Status::Exited(42));
        assert_eq!(Status::from_wait(0).code(), Some(0));
        assert_eq!(Status::from_wait(255 << 8).code(), Some(255));
    }

    #[test]
    fn a_signal_counts_from_128_and_may_dump_core() {
        let term = Status::from_wait(libc::SIGTERM);
        assert_eq!(term.code(), Some(143));
        let quit = Status::from_wait(libc::SIGQUIT | 0x80);
        assert_eq!(
            quit,
            Status::Signaled {
                signal: 3,
                core: true
            }
        );
    }

    #[test]
    fn unknown_is_no_code() {
        assert_eq!(Status::Unknown.code(), None);
    }
}
