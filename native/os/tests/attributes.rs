//! Attributes affect the new program and nothing else. An attribute that cannot be applied is an
//! error with the name of the attribute, and nothing runs.

mod common;

use common::{descriptors, has_children, one_at_a_time, sh, text, try_spawn};
#[cfg(exile_portable)]
use exile_os::{Attempt, SpawnError, Stdio};
use exile_os::{Attributes, Cpus, Errno, IoPriority, Limit, Nice, Step, Umask};

fn nice(value: i32) -> Attributes {
    Attributes {
        nice: Some(Nice::new(value).unwrap()),
        ..Attributes::default()
    }
}

fn umask(mask: u32) -> Attributes {
    Attributes {
        umask: Some(Umask::new(mask).unwrap()),
        ..Attributes::default()
    }
}

#[test]
fn the_program_sees_arg0_and_is_looked_up_by_its_own_name() {
    let _one = one_at_a_time();
    for arg0 in ["-sh", "", "another name"] {
        let attributes = Attributes {
            arg0: Some(common::c(arg0)),
            ..Attributes::default()
        };
        let command = sh("tr '\\0' '\\n' </proc/$$/cmdline").attributes(attributes);
        let cmdline = text(&command);
        assert_eq!(cmdline.lines().next(), Some(arg0));
        assert_eq!(cmdline.lines().nth(1), Some("-c"));
    }
}

#[test]
fn values_that_the_kernel_would_change_are_refused() {
    for value in [i32::MIN, -21, 20, i32::MAX] {
        assert_eq!(Nice::new(value), None);
    }
    assert!(Nice::new(-20).is_some() && Nice::new(19).is_some());
    for mask in [0o1000, 0o4022, u32::MAX] {
        assert_eq!(Umask::new(mask), None);
    }
    assert!(Umask::new(0).is_some() && Umask::new(0o777).is_some());
    assert_eq!(Cpus::new(&[1024]), None);
    assert!(Cpus::new(&[0, 1023]).is_some());
    assert_eq!(IoPriority::best_effort(8), None);
    assert!(IoPriority::best_effort(7).is_some());
    for (name, soft, hard) in [("cpu", 2, 1), ("colour", 1, 1), ("", 1, 1)] {
        assert_eq!(Limit::new(name, soft, hard), None);
    }
    assert!(Limit::new("cpu", 1, Limit::INFINITY).is_some());
}

#[cfg(not(exile_portable))]
mod applied {
    use std::fs;

    use super::*;
    use common::{alone, command, refuse};

    /// Returns the nice value from the content of `/proc/<pid>/stat`, where it is the 19th word.
    fn nice_value(stat: &str) -> i32 {
        // The second word is the name in parentheses, which may contain anything.
        let after_name = stat.rsplit(") ").next().unwrap();
        after_name.split(' ').nth(16).unwrap().parse().unwrap()
    }

    fn our_nice_value() -> i32 {
        nice_value(&fs::read_to_string("/proc/thread-self/stat").unwrap())
    }

    fn our_umask() -> String {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("Umask:"));
        line.unwrap().to_owned()
    }

    #[test]
    fn the_program_has_the_nice_value() {
        let _one = one_at_a_time();
        let ours = our_nice_value();
        for value in [ours, ours + 1, 19] {
            let command = command("cat", &["/proc/self/stat"]).attributes(nice(value));
            assert_eq!(nice_value(&text(&command)), value);
        }
        assert_eq!(our_nice_value(), ours);
    }

    #[test]
    fn the_program_has_the_umask() {
        let _one = one_at_a_time();
        let ours = our_umask();
        for mask in [0o000, 0o027, 0o777] {
            let command = sh("umask").attributes(umask(mask));
            assert_eq!(text(&command).trim(), format!("{mask:04o}"));
        }
        assert_eq!(our_umask(), ours);
    }

    #[test]
    fn without_attributes_the_program_inherits_ours() {
        let _one = one_at_a_time();
        let command = command("cat", &["/proc/self/stat"]).attributes(Attributes::default());
        assert_eq!(nice_value(&text(&command)), our_nice_value());
        let status = text(&common::command("cat", &["/proc/self/status"]));
        assert!(status.contains(&our_umask()));
    }

    #[test]
    fn a_refused_nice_value_is_an_error_named_nice_and_nothing_runs() {
        alone(
            "applied::a_refused_nice_value_is_an_error_named_nice_and_nothing_runs",
            || {
                refuse(libc::SYS_setpriority, None, libc::EACCES);
                let before = descriptors();
                let error = try_spawn(&sh("echo ran").attributes(nice(5))).unwrap_err();
                assert_eq!(error.step, Step::Attribute("nice"));
                assert_eq!(error.step.name(), "nice");
                assert_eq!(error.errno, Errno::new(libc::EACCES));
                assert_eq!(descriptors(), before);
                assert!(!has_children());
                assert_eq!(text(&sh("echo ran")), "ran\n");
            },
        );
    }
}

#[cfg(exile_portable)]
#[test]
fn attributes_that_posix_spawn_cannot_apply_are_refused_by_name() {
    let _one = one_at_a_time();
    let none = Attributes::default;
    let cpus = Attributes {
        cpus: Cpus::new(&[0]),
        ..none()
    };
    let io_priority = Attributes {
        io_priority: Some(IoPriority::IDLE),
        ..none()
    };
    let limits = Attributes {
        limits: Limit::new("core", 0, 0).into_iter().collect(),
        ..none()
    };
    let no_new_privs = Attributes {
        no_new_privs: true,
        ..none()
    };
    for (attributes, name) in [
        (nice(5), "nice"),
        (umask(0o77), "umask"),
        (cpus, "cpus"),
        (io_priority, "io_priority"),
        (limits, "limits"),
        (no_new_privs, "no_new_privs"),
    ] {
        let before = descriptors();
        let error = try_spawn(&sh("echo ran").attributes(attributes)).unwrap_err();
        assert_eq!(error.step, Step::Attribute(name));
        assert_eq!(error.errno, Errno::new(libc::ENOTSUP));
        assert_eq!(descriptors(), before);
        assert!(!has_children());
    }
}

#[cfg(exile_portable)]
#[test]
fn attributes_are_refused_before_a_file_is_emptied_or_another_command_runs() {
    let _one = one_at_a_time();
    let temp = common::TempDir::new();
    let trace = temp.path().join("trace");
    let kept = temp.file("kept", "kept", 0o644);
    let onto_kept = || Stdio::Write {
        path: common::c(&kept),
        append: false,
    };
    let before = descriptors();
    let refused = SpawnError {
        step: Step::Attribute("umask"),
        errno: Errno::new(libc::ENOTSUP),
    };

    let alone = sh("exit 0").stdio(Stdio::Null, onto_kept(), Stdio::Null);
    let error = try_spawn(&alone.attributes(umask(0o77))).unwrap_err();
    assert_eq!(error, refused);

    let first = common::quiet_sh(&format!("touch {}", trace.display()));
    let second = common::quiet_sh("exit 0").attributes(umask(0o77));
    let attempt = Attempt::new();
    let made = common::spawn_pipeline(vec![first, second], Stdio::Null, onto_kept(), &attempt);
    assert_eq!(made.unwrap_err(), (1, refused));

    assert!(!trace.exists());
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), "kept");
    assert_eq!(descriptors(), before);
    assert!(!has_children());
}
