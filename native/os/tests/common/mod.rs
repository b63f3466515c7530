//! What the tests share: small programs to run, ways to wait for them, and the system calls that
//! neither the crate nor the standard library offers.
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

/// Nothing here takes this long unless it never comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How often to look at what only the kernel knows and does not announce.
const PAUSE: Duration = Duration::from_millis(1);

/// Set for a test that [`alone`] has given a process of its own.
const ALONE: &str = "EXILE_TEST_ALONE";

pub(crate) fn c(string: impl AsRef<OsStr>) -> CString {
    CString::new(string.as_ref().as_bytes()).unwrap()
}

/// What a test runs: a command and its streams, pipes for input and output where nothing is said.
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

/// The command `program` with `arguments`, an empty environment and the usual search path.
pub(crate) fn command(program: impl AsRef<OsStr>, arguments: &[&str]) -> Run {
    Command::new(c(program), arguments.iter().map(c), Vec::new(), None).into()
}

/// A shell script with pipes for input and output.
pub(crate) fn sh(script: &str) -> Run {
    command("/bin/sh", &["-c", script])
}

/// A shell script without any pipe.
pub(crate) fn quiet_sh(script: &str) -> Run {
    sh(script).stdio(Stdio::Null, Stdio::Null, Stdio::Null)
}

pub(crate) fn spawn(run: &Run) -> Spawned {
    try_spawn(run).unwrap()
}

/// Spawns without anybody who could cancel it.
pub(crate) fn try_spawn(run: &Run) -> Result<Spawned, SpawnError> {
    run.spawn(&Attempt::new())
}

/// Spawns a pipeline, of whose streams only those for errors count.
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

/// Runs a command to its end with nothing on its input; its output.
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

/// Whether the descriptor becomes readable (or hung up) in time.
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

/// Up to the next newline, without it.
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

/// What is there, waiting for it; `None` at the end.
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

/// What belongs to a life, made of what the test says.
pub(crate) struct Relatives {
    pub(crate) claimed: Box<dyn Fn() + Send + Sync>,
    pub(crate) ended: Box<dyn Fn() + Send + Sync>,
    pub(crate) over: Box<dyn Fn(Option<Errno>) + Send + Sync>,
}

impl Default for Relatives {
    /// Those who do nothing.
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

/// Begins the life of a program that nobody is told of, and claims it. Whether it could be claimed.
pub(crate) fn end_by(child: &Arc<Child>, teardown: &Teardown) -> bool {
    let life = Life::begin(Arc::clone(child), teardown.clone(), Relatives::default());
    life.unwrap().end()
}

/// Waits until every program that has a life has ended and nothing is left to do for it.
pub(crate) fn no_lives() {
    soon("no program has a life", || registry::children().is_empty());
    assert_eq!(registry::under_way(), 0);
}

/// Waits for the end of a program by its exit fd.
pub(crate) fn status(child: &Child) -> Status {
    if let Some(end) = child.end() {
        assert!(becomes_readable(end.as_raw_fd(), PATIENCE), "it runs on");
    }
    eventually("its status is known", || child.try_status())
}

/// Looks until there is something.
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

/// Looks until it is so.
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

/// Runs `body` in a process of its own: this test, started again by its name.
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

/// Whether this process was started for the test of this name by [`myself`].
pub(crate) fn is_alone(name: &str) -> bool {
    std::env::var_os(ALONE).is_some_and(|alone| alone == name)
}

/// This test binary again, for one test in a process of its own.
pub(crate) fn myself(name: &str) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(ALONE, name);
    command
}

/// The numbers of all open descriptors, in order. Those that spawns share are among them from the
/// start.
pub(crate) fn descriptors() -> Vec<RawFd> {
    exile_os::spawn::reserve();
    let mut numbers: Vec<RawFd> = fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap())
        // The one that lists them is closed by now and has no target.
        .filter(|entry| fs::read_link(entry.path()).is_ok_and(|to| !is_own_list(&to)))
        .map(|entry| entry.file_name().to_str().unwrap().parse().unwrap())
        .collect();
    numbers.sort_unstable();
    numbers
}

/// What is open here, by number: what it is.
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

/// Whether this process has a child, be it a zombie.
pub(crate) fn has_children() -> bool {
    // SAFETY: all zeroes is a valid siginfo, and waitid writes into it only.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        libc::waitid(libc::P_ALL, 0, &raw mut info, options) == 0
    }
}

/// Whether it is a child of this process, be it a zombie.
fn is_child_of_ours(pid: libc::pid_t) -> bool {
    // SAFETY: as above.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        libc::waitid(libc::P_PID, pid.unsigned_abs(), &raw mut info, options) == 0
    }
}

/// The pid of a child that has ended and was not waited for.
pub(crate) fn is_zombie_of_ours(pid: libc::pid_t) -> bool {
    // SAFETY: as above.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        libc::waitid(libc::P_PID, pid.unsigned_abs(), &raw mut info, options) == 0
            && info.si_pid() == pid
    }
}

/// A child that has ended and was not waited for.
pub(crate) fn a_zombie_of_ours() -> Option<libc::pid_t> {
    // SAFETY: as above.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        let found = libc::waitid(libc::P_ALL, 0, &raw mut info, options) == 0;
        (found && info.si_pid() != 0).then(|| info.si_pid())
    }
}

/// Takes a lease on a file (`F_WRLCK`), so that whoever opens or executes it has to wait, or gives
/// it up (`F_UNLCK`).
#[cfg(target_os = "linux")]
pub(crate) fn lease(file: impl AsFd, kind: libc::c_int) {
    // SAFETY: the descriptor is open; F_SETLEASE takes an int.
    let leased = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_SETLEASE, kind) };
    assert_eq!(leased, 0);
}

/// Whether somebody waits for the file of a lease.
#[cfg(target_os = "linux")]
pub(crate) fn lease_is_being_broken(file: impl AsFd) -> bool {
    // SAFETY: the descriptor is open.
    let lease = unsafe { libc::fcntl(file.as_fd().as_raw_fd(), libc::F_GETLEASE) };
    lease != libc::F_WRLCK
}

/// Whether this is the kernel of that version, or a later one.
#[cfg(target_os = "linux")]
pub(crate) fn kernel_is_at_least(major: u32, minor: u32) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse());
    match (numbers.next(), numbers.next()) {
        (Some(Ok(found)), Some(Ok(then))) => (found, then) >= (major, minor),
        _ => panic!("what kernel is {release}?"),
    }
}

/// Finds out where statuses come from here, once, and sets what becomes of SIGCHLD as that wants it.
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

/// Says that a test is left out, past those who keep what tests print to themselves.
pub(crate) fn skip(why: &str) {
    let line = format!("skipped: {why}\n");
    io::stderr().write_all(line.as_bytes()).unwrap();
}

/// Sets what becomes of SIGCHLD in this process.
pub(crate) fn sigchld(disposition: libc::sighandler_t) {
    disposition_of(libc::SIGCHLD, disposition);
}

pub(crate) fn disposition_of(signal: libc::c_int, disposition: libc::sighandler_t) {
    // SAFETY: the disposition is SIG_DFL, SIG_IGN or a function that only returns.
    let before = unsafe { libc::signal(signal, disposition) };
    assert_ne!(before, libc::SIG_ERR);
}

/// A pidfd of any process, to see its end.
pub(crate) struct Stranger(OwnedFd);

impl Stranger {
    /// `None` when there is no such process.
    pub(crate) fn of(pid: &str) -> Option<Stranger> {
        let pid: libc::pid_t = pid.trim().parse().unwrap();
        // SAFETY: pidfd_open makes a descriptor or fails.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        // SAFETY: it was made just now and is nobody else's.
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

/// Makes orphans of our children ours.
pub(crate) fn adopt_orphans() {
    // SAFETY: takes an integer.
    let set = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
    assert_eq!(set, 0);
}

/// What the C library calls the number of a limit.
#[cfg(target_env = "gnu")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_env = "gnu"))]
type Resource = libc::c_int;

/// The soft limit, and the hard one.
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

/// A copy of a descriptor at or above `least`, inherited by programs if nobody hides it.
pub(crate) fn inheritable(fd: BorrowedFd<'_>, least: RawFd) -> OwnedFd {
    // SAFETY: the descriptor is open; F_DUPFD takes the least number wanted.
    let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD, least) };
    assert!(copy >= least);
    // SAFETY: it was made just now and is nobody else's.
    unsafe { OwnedFd::from_raw_fd(copy) }
}

/// Makes a system call of this thread, and of what it spawns from now on, fail with `errno`: for
/// any arguments, or where the argument of a number has one value.
pub(crate) fn refuse(call: libc::c_long, argument: Option<(u32, u32)>, errno: libc::c_int) {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    // Offsets into `struct seccomp_data`: the number of the call, then (after the architecture
    // and the instruction pointer) the arguments, 64 bits each, of which the low half counts.
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
    // SAFETY: both take integers, or a filter program that lives until the end of the function.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        let set = libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program);
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
    }
}

/// An empty directory, removed at the end.
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

    /// A file in it.
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

/// A search path of these directories.
pub(crate) fn search(directories: &[&Path]) -> OsString {
    std::env::join_paths(directories).unwrap()
}

/// The null device, as a descriptor of this process.
pub(crate) fn null() -> OwnedFd {
    fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .unwrap()
        .into()
}

/// A copy above the standard streams.
pub(crate) fn copy(fd: impl AsFd) -> OwnedFd {
    fd.as_fd().try_clone_to_owned().unwrap()
}
