//! What the machine can do for a plain program. This program does the same work as the benchmarks
//! do through Exile, on blocking pipes, with nothing around it. Exile is measured against it.
//!
//! ```text
//! limits read BYTES CAPACITY      reads what `head -c BYTES /dev/zero` writes
//! limits both BYTES               reads BYTES from each of standard output and standard error
//! limits duplex BYTES CAPACITY    writes BYTES to `cat` in one thread and reads them in another
//! limits pipeline BYTES           runs `head -c BYTES /dev/zero | cat | cat > /dev/null` in a shell
//! limits shell SCRIPT OUTPUT      runs a shell script, which must write OUTPUT
//! limits run PROGRAM COUNT        runs PROGRAM COUNT times, one after the other
//! limits together COUNT THREADS   runs `true` COUNT times in all, in THREADS threads at once
//! limits echo COUNT SIZE          writes SIZE bytes to `cat` and reads them back, COUNT times
//! limits read-lines COUNT         reads what `limits lines COUNT` writes
//! limits lines COUNT              writes COUNT lines of 20 bytes, each by its own system call
//! limits lease FILE SECONDS       keeps everybody else from opening or executing FILE: Linux only
//! ```
//!
//! The results are nanoseconds as plain numbers: one for all of the work, or, for `run` and `echo`,
//! one line for each time. `read-lines` adds the number of reads. Apart from a script, all work is
//! first done once, smaller and unmeasured. Capacities are in bytes. `lease` prints `held`, and
//! ends with its standard input, or after SECONDS.
//!
//! `std::process` runs the programs. It calls `posix_spawn` and `waitpid` where the system has
//! them.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use exile_os::pipe::{DEFAULT_CAPACITY, set_capacity};

#[cfg(target_os = "linux")]
mod lease;

/// How many bytes to read or write at once, as Exile does.
const CHUNK: usize = 64 * 1024;

/// The length of a line without its end. With it, a line has 20 bytes.
const LINE_DIGITS: usize = 19;

/// How many times smaller the unmeasured work is.
const WARM_UP: u64 = 16;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["read", bytes, capacity] => {
            let (bytes, capacity) = (bytes.parse()?, capacity.parse()?);
            whole(bytes, |bytes| read(bytes, capacity))
        }
        ["both", bytes] => whole(bytes.parse()?, both),
        ["duplex", bytes, capacity] => {
            let (bytes, capacity) = (bytes.parse()?, capacity.parse()?);
            whole(bytes, |bytes| duplex(bytes, capacity))
        }
        ["pipeline", bytes] => whole(bytes.parse()?, pipeline),
        ["shell", script, output] => {
            let start = Instant::now();
            let done = Command::new("sh").args(["-c", script]).output()?;
            let time = start.elapsed();
            succeeded(done.status)?;
            if String::from_utf8_lossy(&done.stdout).trim() != output {
                return Err(format!("the script wrote {:?}", done.stdout).into());
            }
            println!("{}", time.as_nanos());
            Ok(())
        }
        ["run", program, count] => each(count.parse()?, |count| run(program, count)),
        ["together", count, threads] => {
            let threads = threads.parse()?;
            whole(count.parse()?, |count| together(count, threads))
        }
        ["echo", count, size] => {
            let size = size.parse()?;
            each(count.parse()?, |count| echo(count, size))
        }
        ["read-lines", count] => {
            let count = count.parse()?;
            read_lines(count / WARM_UP)?;
            let start = Instant::now();
            let reads = read_lines(count)?;
            println!("{} {reads}", start.elapsed().as_nanos());
            Ok(())
        }
        ["lines", count] => Ok(write_lines(count.parse()?)?),
        #[cfg(target_os = "linux")]
        ["lease", file, seconds] => Ok(lease::hold(file, Duration::from_secs(seconds.parse()?))?),
        _ => Err("the first lines of limits/src/main.rs say how to call this program".into()),
    }
}

/// Prints how long all of the work took.
fn whole(amount: u64, work: impl Fn(u64) -> Outcome<()>) -> Outcome<()> {
    work(amount / WARM_UP)?;
    let start = Instant::now();
    work(amount)?;
    println!("{}", start.elapsed().as_nanos());
    Ok(())
}

/// Prints how long each time took.
fn each(count: u64, work: impl Fn(u64) -> Outcome<Vec<Duration>>) -> Outcome<()> {
    work(count / WARM_UP)?;
    let times = work(count)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    for time in times {
        writeln!(out, "{}", time.as_nanos())?;
    }
    Ok(out.flush()?)
}

fn read(bytes: u64, capacity: usize) -> Outcome<()> {
    let mut child = Command::new("head")
        .args(["-c", &bytes.to_string(), "/dev/zero"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut output = child.stdout.take().ok_or("no pipe")?;
    resize(&output, capacity)?;
    expect(bytes, drain(&mut output)?.bytes)?;
    succeeded(child.wait()?)
}

fn both(bytes: u64) -> Outcome<()> {
    let script = format!("head -c {bytes} /dev/zero & head -c {bytes} /dev/zero >&2; wait");
    let mut child = Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut output = child.stdout.take().ok_or("no pipe")?;
    let mut errors = child.stderr.take().ok_or("no pipe")?;
    let other = thread::spawn(move || drain(&mut errors));
    expect(bytes, drain(&mut output)?.bytes)?;
    expect(bytes, other.join().map_err(|_| "the reader failed")??.bytes)?;
    succeeded(child.wait()?)
}

fn duplex(bytes: u64, capacity: usize) -> Outcome<()> {
    let mut child = piped("cat").spawn()?;
    let mut input = child.stdin.take().ok_or("no pipe")?;
    let mut output = child.stdout.take().ok_or("no pipe")?;
    resize(&input, capacity)?;
    resize(&output, capacity)?;
    let writer = thread::spawn(move || -> io::Result<()> {
        let chunk = vec![0; CHUNK];
        let mut left = bytes;
        while left > 0 {
            let size = left.min(CHUNK as u64);
            input.write_all(&chunk[..size as usize])?;
            left -= size;
        }
        Ok(())
    });
    expect(bytes, drain(&mut output)?.bytes)?;
    writer.join().map_err(|_| "the writer failed")??;
    succeeded(child.wait()?)
}

fn pipeline(bytes: u64) -> Outcome<()> {
    let script = format!("head -c {bytes} /dev/zero | cat | cat > /dev/null");
    succeeded(Command::new("sh").args(["-c", &script]).status()?)
}

fn run(program: &str, count: u64) -> Outcome<Vec<Duration>> {
    (0..count)
        .map(|_| {
            let start = Instant::now();
            succeeded(piped(program).spawn()?.wait()?)?;
            Ok(start.elapsed())
        })
        .collect()
}

fn together(count: u64, threads: u64) -> Outcome<()> {
    let runners: Vec<_> = (0..threads)
        .map(|_| thread::spawn(move || run("true", count / threads)))
        .collect();
    for runner in runners {
        runner.join().map_err(|_| "a runner failed")??;
    }
    Ok(())
}

fn echo(count: u64, size: usize) -> Outcome<Vec<Duration>> {
    let mut child = piped("cat").spawn()?;
    let mut input = child.stdin.take().ok_or("no pipe")?;
    let mut output = child.stdout.take().ok_or("no pipe")?;
    let message = vec![b'x'; size];
    let mut answer = vec![0; size];
    let times = (0..count)
        .map(|_| {
            let start = Instant::now();
            input.write_all(&message)?;
            output.read_exact(&mut answer)?;
            Ok(start.elapsed())
        })
        .collect::<io::Result<_>>()?;
    drop(input);
    succeeded(child.wait()?)?;
    Ok(times)
}

/// Returns the number of reads.
fn read_lines(count: u64) -> Outcome<u64> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["lines", &count.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let drained = drain(&mut child.stdout.take().ok_or("no pipe")?)?;
    expect(count * (LINE_DIGITS as u64 + 1), drained.bytes)?;
    succeeded(child.wait()?)?;
    Ok(drained.reads)
}

fn write_lines(count: u64) -> io::Result<()> {
    let line = format!("{:0LINE_DIGITS$}\n", 0);
    // Rust's standard output would first look for the end of the line.
    let mut out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    for _ in 0..count {
        out.write_all(line.as_bytes())?;
    }
    Ok(())
}

fn piped(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

fn resize(pipe: &impl AsRawFd, capacity: usize) -> Outcome<()> {
    if capacity != DEFAULT_CAPACITY {
        set_capacity(pipe, capacity).map_err(|errno| format!("{errno:?}"))?;
    }
    Ok(())
}

struct Drained {
    bytes: u64,
    reads: u64,
}

fn drain(from: &mut impl Read) -> io::Result<Drained> {
    let mut buffer = vec![0; CHUNK];
    let mut drained = Drained { bytes: 0, reads: 0 };
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(drained),
            count => {
                drained.bytes += count as u64;
                drained.reads += 1;
            }
        }
    }
}

fn expect(bytes: u64, got: u64) -> Outcome<()> {
    if bytes == got {
        Ok(())
    } else {
        Err(format!("expected {bytes} bytes, got {got}").into())
    }
}

fn succeeded(status: ExitStatus) -> Outcome<()> {
    if status.success() {
        Ok(())
    } else {
        Err(status.to_string().into())
    }
}
