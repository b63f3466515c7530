//! Helpers shared by the tests: small commands to run, ways to wait for them, and the system calls
//! that neither the crate nor the standard library offers.
//!
//! # Safety
//! Unsafe code here makes system calls on values that live in the same function.
#![allow(unsafe_code, dead_code)]

use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use exile_os::exit::{self, Source};
use exile_os::life::registry;
use exile_os::pipe::ReadEnd;
use exile_os::{
    Attempt, Attributes, Child, Command, Errno, Kin, Life, Pipeline, SpawnError, Spawned, Stage,
    Status, Stdio, Streams, Teardown,
};

/// How long to wait for anything. Longer than any expected event takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How often to poll for changes that the kernel does not announce.
const PAUSE: Duration = Duration::from_millis(1);

/// The environment variable that is set for a test that [`alone`] runs in its own process.
const ALONE: &str = "EXILE_TEST_ALONE";

pub(crate) fn c(string: impl AsRef<OsStr>) -> CString {
    CString::new(string.as_ref().as_bytes()).unwrap()
}

/// A command and its standard streams. By default, the input and output are pipes.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) command: Command,
    pub(crate) streams: Streams,
}

impl From<Command> for Run {
    fn from(command: Command) -> Run {
        Run {
            command,
            streams: Streams::default(),
        }
    }
}

impl Run {
    pub(crate) fn stdio(self, stdin: Stdio, stdout: Stdio, stderr: Stdio) -> Run {
        Run {
            command: self.command,
            streams: Streams {
                stdin,
                stdout,
                stderr,
            },
        }
    }

    pub(crate) fn directory(self, directory: Option<CString>) -> Run {
        Run {
            command: self.command.directory(directory),
            ..self
        }
    }

    pub(crate) fn attributes(self, attributes: Attributes) -> Run {
        Run {
            command: self.command.attributes(attributes),
            ..self
        }
    }

    pub(crate) fn spawn(&self, attempt: &Attempt) -> Result<Spawned, SpawnError> {
        let one = exile_os::spawn(&self.command, &self.streams, attempt)?;
        spawned().push(one.child.pid());
        Ok(one)
    }
}

/// Returns the command `program` with `arguments`, an empty environment and the usual search path.
pub(crate) fn command(program: impl AsRef<OsStr>, arguments: &[&str]) -> Run {
    Command::new(c(program), arguments.iter().map(c), Vec::new(), None).into()
}

/// Returns a command that runs a shell script with pipes for input and output.
pub(crate) fn sh(script: &str) -> Run {
    command("/bin/sh", &["-c", script])
}

/// Returns a command that runs a shell script without any pipe.
pub(crate) fn quiet_sh(script: &str) -> Run {
    sh(script).stdio(Stdio::Null, Stdio::Null, Stdio::Null)
}

pub(crate) fn spawn(run: &Run) -> Spawned {
    try_spawn(run).unwrap()
}

/// Spawns with an attempt that nothing can cancel.
pub(crate) fn try_spawn(run: &Run) -> Result<Spawned, SpawnError> {
    run.spawn(&Attempt::new())
}

/// Spawns a pipeline. Of the streams in `runs`, only standard error is used.
pub(crate) fn spawn_pipeline(
    runs: Vec<Run>,
    stdin: Stdio,
    stdout: Stdio,
    attempt: &Attempt,
) -> Result<Pipeline, (usize, SpawnError)> {
    let stage = |run: Run| Stage {
        command: run.command,
        stderr: run.streams.stderr,
    };
    let stages = runs.into_iter().map(stage).collect();
    let pipeline = exile_os::spawn_pipeline(stages, stdin, stdout, attempt)?;
    spawned().extend(pipeline.children.iter().map(|child| child.pid()));
    Ok(pipeline)
}

/// Runs a command with empty input until it exits with 0, and returns its output.
pub(crate) fn output(run: &Run) -> Vec<u8> {
    let mut spawned = spawn(run);
    spawned.stdin = None;
    let bytes = read_to_end(spawned.stdout.as_ref().unwrap());
    assert_eq!(status(&spawned.child), Status::Exited(0));
    bytes
}

pub(crate) fn text(run: &Run) -> String {
    String::from_utf8(output(run)).unwrap()
}

/// Returns whether the descriptor becomes readable (or hung up) in time.
pub(crate) fn becomes_readable(fd: RawFd, patience: Duration) -> bool {
    becomes(fd, libc::POLLIN, patience)
}

pub(crate) fn becomes_writable(fd: RawFd, patience: Duration) -> bool {
    becomes(fd, libc::POLLOUT, patience)
}

fn becomes(fd: RawFd, events: libc::c_short, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        let mut poll = libc::pollfd {
            fd,
            events,
            revents: 0,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        // SAFETY: `poll` is one entry.
        let ready = unsafe { libc::poll(&raw mut poll, 1, left.as_millis() as libc::c_int) };
        if ready == -1 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted {
            continue;
        }
        assert_eq!(
            poll.revents & libc::POLLNVAL,
            0,
            "descriptor {fd} is closed"
        );
        return ready == 1;
    }
}

pub(crate) fn read_to_end(end: &ReadEnd) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(bytes) = read_some(end) {
        all.extend(bytes);
    }
    all
}

/// Reads up to the next newline and returns the line without it.
pub(crate) fn line(end: &ReadEnd) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        match end.read_into(&mut byte).unwrap() {
            None => assert!(becomes_readable(end.as_raw_fd(), PATIENCE), "no line comes"),
            Some(0) => panic!("the output ended after {line:?}"),
            Some(_) if byte == *b"\n" => return String::from_utf8(line).unwrap(),
            Some(_) => line.extend(byte),
        }
    }
}

/// Waits for output and returns what is available, or `None` at end-of-file.
pub(crate) fn read_some(end: &ReadEnd) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match end.read_into(&mut buffer).unwrap() {
            None => assert!(becomes_readable(end.as_raw_fd(), PATIENCE), "no output"),
            Some(0) => return None,
            Some(count) => {
                buffer.truncate(count);
                return Some(buffer);
            }
        }
    }
}

/// The callbacks of a life, as closures that the test provides.
pub(crate) struct Relatives {
    pub(crate) claimed: Box<dyn Fn() + Send + Sync>,
    pub(crate) ended: Box<dyn Fn() + Send + Sync>,
    pub(crate) over: Box<dyn Fn(Option<Errno>) + Send + Sync>,
}

impl Default for Relatives {
    /// Returns callbacks that do nothing.
    fn default() -> Relatives {
        Relatives {
            claimed: Box::new(|| ()),
            ended: Box::new(|| ()),
            over: Box::new(|_| ()),
        }
    }
}

impl Kin for Relatives {
    type Caller = ();
    const KEEPER: () = ();

    fn claimed(&self) {
        (self.claimed)();
    }

    fn ended(&self, (): ()) {
        (self.ended)();
    }

    fn over(&self, refused: Option<Errno>) {
        (self.over)(refused);
    }
}

/// Begins the life of a process with callbacks that do nothing, and claims it. Returns whether it
/// could be claimed.
pub(crate) fn end_by(child: &Arc<Child>, teardown: &Teardown) -> bool {
    let life = Life::begin(Arc::clone(child), teardown.clone(), Relatives::default());
    life.unwrap().end()
}

/// Waits until every process with a life has exited and no teardown is under way.
pub(crate) fn no_lives() {
    soon("no program has a life", || registry::children().is_empty());
    assert_eq!(registry::under_way(), 0);
}

/// Waits for the exit of a process on its exit fd, and returns its status.
pub(crate) fn status(child: &Child) -> Status {
    if let Some(end) = child.end() {
        assert!(becomes_readable(end.as_raw_fd(), PATIENCE), "it runs on");
    }
    eventually("its status is known", || child.try_status())
}

/// Polls `look` until it returns `Some`, and returns the value.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// Polls `look` until it returns true.
pub(crate) fn soon(what: &str, mut look: impl FnMut() -> bool) {
    eventually(what, || look().then_some(()));
}

/// The programs that tests of this process have spawned, and that nobody has been seen to reap.
static SPAWNED: Mutex<Vec<libc::pid_t>> = Mutex::new(Vec::new());

fn spawned() -> MutexGuard<'static, Vec<libc::pid_t>> {
    SPAWNED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The turn of a test. The programs that the test leaves running end with it.
pub(crate) struct Turn {
    _lock: MutexGuard<'static, ()>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        spawned().retain(|pid| is_child_of_ours(*pid));
        for pid in spawned().iter() {
            // SAFETY: kill touches no memory. The pid is that of a child that nobody has reaped.
            unsafe { libc::kill(*pid, libc::SIGKILL) };
        }
    }
}

/// One test of this process at a time: counts of descriptors and children are those of all. A
/// test finds no program of the one before: one that was dropped is a zombie until it is buried.
pub(crate) fn one_at_a_time() -> Turn {
    static LOCK: Mutex<()> = Mutex::new(());
    let turn = Turn {
        _lock: LOCK.lock().unwrap_or_else(PoisonError::into_inner),
    };
    soon("no program of the test before is left", || {
        let mut left = spawned();
        left.retain(|pid| {
            if is_zombie_of_ours(*pid) {
                // SAFETY: it writes nothing.
                unsafe { libc::waitpid(*pid, std::ptr::null_mut(), 0) };
            }
            is_child_of_ours(*pid)
        });
        left.is_empty()
    });
    turn
}

/// Runs `body` in its own process, by running this test binary again for the test `name`.
pub(crate) fn alone(name: &str, body: impl FnOnce()) {
    if is_alone(name) {
        return body();
    }
    sigchld(libc::SIG_DFL);
    let ran = myself(name).output().unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr),
    );
    assert!(ran.status.success(), "{}\n{out}\n{err}", ran.status);
    assert!(out.contains("1 passed"), "no test is called {name}\n{out}");
}

/// Returns whether [`myself`] started this process for the test of this name.
pub(crate) fn is_alone(name: &str) -> bool {
    std::env::var_os(ALONE).is_some_and(|alone| alone == name)
}

/// Returns a command that runs this test binary again, for one test.
pub(crate) fn myself(name: &str) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(ALONE, name);
    command
}

/// Returns the numbers of all open descriptors, in order. Opens the descriptors that all spawns
/// share first, so that they are always among them.
pub(crate) fn descriptors() -> Vec<RawFd> {
    exile_os::spawn::reserve();
    let mut numbers: Vec<RawFd> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap())
        // The descriptor of the listing itself is closed by now and has no target.
        .filter(|entry| fs::read_link(entry.path()).is_ok_and(|to| !is_own_list(&to)))
        .map(|entry| entry.file_name().to_str().unwrap().parse().unwrap())
        .collect();
    numbers.sort_unstable();
    numbers
}

/// Returns the number and the target of every open descriptor.
pub(crate) fn table() -> Vec<(RawFd, String)> {
    descriptors()
        .into_iter()
        .map(|fd| {
            let target = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
            (fd, target.to_str().unwrap().to_owned())
        })
        .collect()
}

fn is_own_list(target: &Path) -> bool {
    target == Path::new(&format!("/proc/{}/fd", std::process::id()))
}

/// Returns whether this process has a child, including zombies.
pub(crate) fn has_children() -> bool {
    // SAFETY: all zeroes is a valid siginfo, and waitid writes only into it.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        libc::waitid(libc::P_ALL, 0, &raw mut info, options) == 0
    }
}

/// Returns whether `pid` is a child of this process, including zombies.
fn is_child_of_ours(pid: libc::pid_t) -> bool {
    // SAFETY: as above.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        libc::waitid(libc::P_PID, pid.unsigned_abs(), &raw mut info, options) == 0
    }
}

/// Returns whether `pid` is a child that has exited and was not reaped.
pub(crate) fn is_zombie_of_ours(pid: libc::pid_t) -> bool {
    // SAFETY: as above.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        libc::waitid(libc::P_PID, pid.unsigned_abs(), &raw mut info, options) == 0
            && info.si_pid() == pid
    }
}

/// Returns the pid of a child that has exited and was not reaped, if there is one.
pub(crate) fn a_zombie_of_ours() -> Option<libc::pid_t> {
    // SAFETY: as above.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        let found = libc::waitid(libc::P_ALL, 0, &raw mut info, options) == 0;
        (found && info.si_pid() != 0).then(|| info.si_pid())
    }
}

/// Takes a lease on a file (`F_WRLCK`), so that any process that opens or executes the file blocks,
/// or releases the lease (`F_UNLCK`).
#[cfg(target_os = "linux")]
pub(crate) fn lease(file: impl AsFd, kind: libc::c_int) {
    // SAFETY: the descriptor is open; F_SETLEASE takes an int.
    let leased = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_SETLEASE, kind) };
    assert_eq!(leased, 0);
}

/// Returns whether a process waits for the lease on the file to be released.
#[cfg(target_os = "linux")]
pub(crate) fn lease_is_being_broken(file: impl AsFd) -> bool {
    // SAFETY: the descriptor is open.
    let lease = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_GETLEASE) };
    lease != libc::F_WRLCK
}

/// Returns whether the kernel has at least this version.
#[cfg(target_os = "linux")]
pub(crate) fn kernel_is_at_least(major: u32, minor: u32) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse());
    match (numbers.next(), numbers.next()) {
        (Some(Ok(found)), Some(Ok(then))) => (found, then) >= (major, minor),
        _ => panic!("what kernel is {release}?"),
    }
}

/// Chooses the source of statuses once per process, and sets the disposition of SIGCHLD that this
/// source needs.
pub(crate) fn choose_source() {
    static SOURCE: LazyLock<Source> = LazyLock::new(|| {
        sigchld(libc::SIG_IGN);
        exit::choose(None).unwrap()
    });
    let source = *SOURCE;
    assert_eq!(exit::choose(Some(source)), Ok(source));
    sigchld(match source {
        Source::Pidfd => libc::SIG_IGN,
        Source::Wait | Source::Portable => libc::SIG_DFL,
    });
}

/// Reports that a test is skipped. Writes to stderr directly, because the test harness captures
/// what the print macros write.
pub(crate) fn skip(why: &str) {
    let line = format!("skipped: {why}\n");
    io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Sets the disposition of SIGCHLD in this process.
pub(crate) fn sigchld(disposition: libc::sighandler_t) {
    disposition_of(libc::SIGCHLD, disposition);
}

pub(crate) fn disposition_of(signal: libc::c_int, disposition: libc::sighandler_t) {
    // SAFETY: the disposition is SIG_DFL, SIG_IGN or a function that only returns.
    let before = unsafe { libc::signal(signal, disposition) };
    assert_ne!(before, libc::SIG_ERR);
}

/// A pidfd of any process, used to see its exit.
pub(crate) struct Stranger(OwnedFd);

impl Stranger {
    /// Returns `None` if there is no such process.
    pub(crate) fn of(pid: &str) -> Option<Stranger> {
        let pid: libc::pid_t = pid.trim().parse().unwrap();
        // SAFETY: pidfd_open takes integers, and creates a descriptor or fails.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        // SAFETY: the descriptor was just created and nothing else owns it.
        (fd >= 0).then(|| Stranger(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
    }

    pub(crate) fn has_ended(&self) -> bool {
        becomes_readable(self.0.as_raw_fd(), Duration::ZERO)
    }

    pub(crate) fn ends(&self) -> bool {
        becomes_readable(self.0.as_raw_fd(), PATIENCE)
    }

    pub(crate) fn kill(&self) {
        let none = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor is open.
        let sent = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.as_raw_fd(),
                libc::SIGKILL,
                none,
                0,
            )
        };
        assert_eq!(sent, 0);
    }
}

/// Makes this process the parent of its orphaned descendants.
pub(crate) fn adopt_orphans() {
    // SAFETY: takes an integer.
    let set = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
    assert_eq!(set, 0);
}

/// The C library's type for the number of a limit.
#[cfg(target_env = "gnu")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type Resource = libc::c_int;

/// Returns the soft and the hard limit.
pub(crate) fn limit(resource: Resource) -> libc::rlimit {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: getrlimit writes into `limit`.
    assert_eq!(unsafe { libc::getrlimit(resource, &raw mut limit) }, 0);
    limit
}

/// Sets the soft limit.
pub(crate) fn set_limit(resource: Resource, soft: libc::rlim_t) {
    let mut new = limit(resource);
    new.rlim_cur = soft;
    // SAFETY: setrlimit reads `new`.
    assert_eq!(unsafe { libc::setrlimit(resource, &raw const new) }, 0);
}

/// Duplicates a descriptor to a number of at least `least`, without close-on-exec.
pub(crate) fn inheritable(fd: BorrowedFd<'_>, least: RawFd) -> OwnedFd {
    // SAFETY: the descriptor is open; F_DUPFD takes an integer.
    let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD, least) };
    assert!(copy >= least);
    // SAFETY: the descriptor was just created and nothing else owns it.
    unsafe { OwnedFd::from_raw_fd(copy) }
}

/// Makes a system call fail with `errno` in this thread and in everything it spawns from now on. If
/// `argument` is given as an index and a value, only calls with that argument fail.
pub(crate) fn refuse(call: libc::c_long, argument: Option<(u32, u32)>, errno: libc::c_int) {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    // Offsets into `struct seccomp_data`: the number of the call, then (after the architecture
    // and the instruction pointer) the arguments, 64 bits each. Only the low half is compared.
    const NUMBER: u32 = 0;
    const ARGUMENTS: u32 = 16;
    let low_half = if cfg!(target_endian = "big") { 4 } else { 0 };
    let step = |code, k| libc::sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    };
    let unless_equal = |k, jf| libc::sock_filter {
        code: EQUAL,
        jt: 0,
        jf,
        k,
    };
    let mut filter = vec![step(LOAD, NUMBER)];
    if let Some((index, value)) = argument {
        filter.push(unless_equal(call as u32, 3));
        filter.push(step(LOAD, ARGUMENTS + 8 * index + low_half));
        filter.push(unless_equal(value, 1));
    } else {
        filter.push(unless_equal(call as u32, 1));
    }
    filter.push(step(RETURN, libc::SECCOMP_RET_ERRNO | errno as u32));
    filter.push(step(RETURN, libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: prctl takes integers here, or a filter program that lives until the function ends.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        let set = libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program);
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
    }
}

/// An empty directory, removed on drop.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new() -> TempDir {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("exile-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        TempDir(path.canonicalize().unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Creates a file in the directory.
    pub(crate) fn file(&self, name: impl AsRef<OsStr>, content: &str, mode: u32) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.0.join(name.as_ref());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    pub(crate) fn directory(&self, name: impl AsRef<OsStr>) -> PathBuf {
        let path = self.0.join(name.as_ref());
        fs::create_dir_all(&path).unwrap();
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Returns a search path of these directories.
pub(crate) fn search(directories: &[&Path]) -> OsString {
    std::env::join_paths(directories).unwrap()
}

/// Opens the null device.
pub(crate) fn null() -> OwnedFd {
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .unwrap()
        .into()
}

/// Duplicates a descriptor to a number above the standard streams.
pub(crate) fn copy(fd: impl AsFd) -> OwnedFd {
    fd.as_fd().try_clone_to_owned().unwrap()
}
