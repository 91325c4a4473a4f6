//! A stranger's process (`isonorm-kernel-worker`), seen from this one: starting it, asking it, ending it, and telling how it ended.

use std::fmt::Write as _;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::memory::{self, BOARD, BoardMapping, Mapping, PAGE, REGIONS, duplicate};
use super::wire::{Batch, Greeting, Location, Reply};
use super::{Crash, Limits, Place, Request, RunError, StrayAccess};

/// A process whose shared file is longer than this is used up.
const KEPT: usize = 256 << 20;
/// More than any reply is long.
const LONGEST_LINE: usize = 1 << 20;
/// How often a process that does not answer is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// What is kept of the messages that a process printed last.
const LOG_TAIL: usize = 1000;

/// A kernel's process.
pub(super) struct Process {
    child: Child,
    socket: UnixStream,
    file: std::fs::File,
    length: usize,
    board: BoardMapping,
    regions: Vec<Region>,
    log: std::fs::File,
    /// The system ends the process when this thread ends.
    thread: ThreadId,
    limits: Limits,
}

/// A part of the shared file: memory for one tensor.
struct Region {
    mapping: Mapping,
    offset: usize,
    length: usize,
    writable: bool,
    busy: bool,
}

/// Why a process did not answer.
pub(super) enum Ended {
    Crashed(Crash),
    Hung(Duration),
    Broken(io::Error),
}

impl Process {
    /// Starts a process and has it load a library.
    pub(super) fn start(program: &Path, library: &Path, limits: Limits) -> Result<(Self, Greeting), RunError> {
        let broken = |source| RunError::Sandbox { source };
        let mut process = Self::spawn(program, library, limits).map_err(broken)?;
        let path = || library.to_owned();
        let greeting = match process.receive::<Greeting>() {
            Ok(greeting) => greeting,
            Err(Ended::Crashed(crash)) => return Err(RunError::LoadCrashed { path: path(), crash }),
            Err(Ended::Hung(limit)) => return Err(RunError::LoadHung { path: path(), limit }),
            Err(Ended::Broken(source)) => return Err(broken(source)),
        };
        Ok((process, greeting))
    }

    fn spawn(program: &Path, library: &Path, limits: Limits) -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        let (file, log) = (memory::file("isonorm tensors")?, memory::file("isonorm log")?);
        file.set_len(BOARD as u64)?;
        let board = BoardMapping::new(file.as_fd())?;
        let mut command = Command::new(program);
        command.arg(std::process::id().to_string()).arg(limits.memory.to_string()).arg(library);
        command.stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)));
        command.stdout(Stdio::from(duplicate(&file)?)).stderr(Stdio::from(duplicate(&log)?));
        command.env_clear().process_group(0);
        if let Some(folders) = std::env::var_os("LD_LIBRARY_PATH") {
            command.env("LD_LIBRARY_PATH", folders);
        }
        let child = command.spawn()?;
        // `command` holds the other end of the socket: only when it is dropped does the end of the process show.
        drop(command);
        let thread = thread::current().id();
        let (length, regions) = (BOARD, Vec::new());
        Ok(Process { child, socket, file, length, board, regions, log, thread, limits })
    }

    /// Has calls made.
    pub(super) fn exchange(&mut self, batch: &Batch) -> Result<Reply, Ended> {
        let mut line = serde_json::to_vec(batch).map_err(|error| Ended::Broken(error.into()))?;
        line.push(b'\n');
        // A process that has ended is found out by the reading.
        let _ = self.socket.write_all(&line);
        let reply: Reply = self.receive()?;
        if reply.calls.is_empty() || reply.calls.len() > batch.calls.len() {
            return Err(self.garbage());
        }
        Ok(reply)
    }

    /// Waits for a message.
    fn receive<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, Ended> {
        let mut line = Vec::new();
        let (mut calls, mut since) = (self.board.calls.load(Ordering::SeqCst), Instant::now());
        self.socket.set_read_timeout(Some(LOOK.min(self.limits.time))).map_err(Ended::Broken)?;
        let mut buffer = [0; 4096];
        while !line.ends_with(b"\n") {
            match self.socket.read(&mut buffer) {
                Ok(0) => return Err(Ended::Crashed(self.post_mortem())),
                Ok(count) if line.len() + count <= LONGEST_LINE => line.extend(&buffer[..count]),
                Ok(_) => return Err(self.garbage()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    let now = self.board.calls.load(Ordering::SeqCst);
                    if now != calls {
                        (calls, since) = (now, Instant::now());
                    } else if since.elapsed() >= self.limits.time {
                        self.kill();
                        return Err(Ended::Hung(self.limits.time));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(Ended::Crashed(self.post_mortem()));
                }
                Err(error) => return Err(Ended::Broken(error)),
            }
        }
        serde_json::from_slice(&line).map_err(|_| self.garbage())
    }

    fn garbage(&mut self) -> Ended {
        self.kill();
        Ended::Crashed(Crash::new("wrote to a file descriptor that is not its own, where replies are expected"))
    }

    fn kill(&mut self) {
        // The group first: a kernel may have started processes. Both fail if there is nothing left to end.
        let _ = killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Says how a process ended that closed its socket.
    fn post_mortem(&mut self) -> Crash {
        let deadline = Instant::now() + Duration::from_secs(1);
        let status = loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_micros(200)),
                Ok(status) => break status,
                Err(_) => break None,
            }
        };
        self.kill();
        let mut description = match status {
            None => "closed a file descriptor that is not its own, where replies are expected".to_owned(),
            Some(status) => self.describe(status),
        };
        if let Some(log) = self.log_tail() {
            let _ = write!(description, "; it printed: {log}");
        }
        Crash { description, access: None }
    }

    fn describe(&self, status: ExitStatus) -> String {
        let Some(signal) = status.signal() else {
            return format!("ended its process with exit({})", status.code().unwrap_or_default());
        };
        let name = Signal::try_from(signal).map_or("a signal", Signal::as_str);
        let board = |cell: &std::sync::atomic::AtomicU64| cell.load(Ordering::SeqCst);
        if board(&self.board.signal) != signal as u64 {
            let hint = match signal {
                libc::SIGILL => " (an instruction that this processor does not have, or a trap)",
                libc::SIGFPE => " (an integer division by zero, or an unmasked floating-point exception)",
                libc::SIGKILL => " (ended from outside, perhaps for want of memory)",
                libc::SIGABRT => " (abort)",
                _ => "",
            };
            return format!("ended by {name}{hint}");
        }
        let (address, stack) = (board(&self.board.address), board(&self.board.stack));
        let what = match board(&self.board.access) {
            1 => "reading",
            2 => "writing",
            _ => "touching",
        };
        match board(&self.board.code) as i32 {
            code if code <= 0 => format!("ended by {name}, sent by itself"),
            // A general protection fault has no address.
            128 => format!("ended by {name}: a vector access to a misaligned address, or a wild pointer"),
            _ if address.abs_diff(stack) < 1 << 16 => format!("ended by {name}: its stack overflowed"),
            _ if address < PAGE as u64 => format!("ended by {name}, {what} through a null pointer ({address:#x})"),
            _ => format!("ended by {name}, {what} at {address:#x}"),
        }
    }

    /// The last of what the process printed during the request.
    fn log_tail(&self) -> Option<String> {
        let end = (&self.log).stream_position().ok()?;
        let start = end.saturating_sub(LOG_TAIL as u64);
        let mut bytes = vec![0; (end - start) as usize];
        self.log.read_exact_at(&mut bytes, start).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// Whether another process should be started for the next request: this one holds much memory, or belongs to a
    /// thread that may have ended.
    pub(super) fn is_spent(&self) -> bool {
        self.length > KEPT || self.regions.len() > REGIONS / 2 || self.thread != thread::current().id()
    }

    /// Makes all regions free.
    pub(super) fn free_regions(&mut self) {
        self.regions.iter_mut().for_each(|region| region.busy = false);
    }

    /// Takes a free region for a tensor, or makes one.
    pub(super) fn take_region(&mut self, bytes: usize, writable: bool) -> io::Result<Location> {
        // Sizes are rounded so that regions fit many tensors.
        let pages = bytes.div_ceil(PAGE).max(1);
        let length = PAGE * if pages <= 16 { pages.next_power_of_two() } else { pages.next_multiple_of(16) };
        let fits = |region: &Region| !region.busy && (region.length, region.writable) == (length, writable);
        let number = match self.regions.iter().position(fits) {
            Some(found) => found,
            None => {
                let offset = self.length;
                self.file.set_len((offset + length) as u64)?;
                self.length += length;
                let mapping = Mapping::new(self.file.as_fd(), offset, length)?;
                self.regions.push(Region { mapping, offset, length, writable, busy: false });
                self.regions.len() - 1
            }
        };
        let region = &mut self.regions[number];
        region.busy = true;
        Ok(Location { region: number, offset: region.offset, length, writable, start: 0 })
    }

    /// The memory of a region, as this process sees it.
    pub(super) fn memory(&self, location: &Location) -> &Mapping {
        &self.regions[location.region].mapping
    }

    /// The tensor next to the address at which the process ended.
    pub(super) fn stray_access(&self, request: &Request, calls: &[Vec<Location>]) -> Option<StrayAccess> {
        let address = self.board.address.load(Ordering::SeqCst);
        if self.board.signal.load(Ordering::SeqCst) == 0 || address < PAGE as u64 {
            return None;
        }
        let access = self.board.access.load(Ordering::SeqCst);
        let write = [None, Some(false), Some(true)].get(access as usize).copied().flatten();
        let tensors = request.inputs.iter().chain(&request.outputs);
        let stray = calls.iter().flat_map(|call| tensors.clone().zip(call)).filter_map(|(tensor, location)| {
            let start =
                self.board.regions[location.region].load(Ordering::SeqCst).checked_add(location.start as u64)?;
            let (size, bytes) = (tensor.dtype.size() as u64, tensor.bytes() as u64);
            let (distance, place) = if address < start {
                let distance = start - address;
                (distance, Place::Before(distance.div_ceil(size) as usize))
            } else if address < start + bytes {
                (0, Place::Inside(((address - start) / size) as usize))
            } else {
                let distance = address - start - bytes;
                (distance, Place::After((distance / size) as usize + 1))
            };
            Some((distance, StrayAccess { tensor: tensor.name.clone(), write, place }))
        });
        let (distance, access) = stray.min_by_key(|(distance, _)| *distance)?;
        (distance < memory::GUARD as u64).then_some(access)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
