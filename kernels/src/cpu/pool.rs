//! Threads that are there already.
//!
//! A kernel that runs for ten microseconds cannot wait fifty for a sleeping thread. The workers here stay awake for a while
//! after each job ([`PATIENCE`]) before they sleep, as those of OpenMP do; and whoever asked for a job works on all of its
//! parts that no worker has taken, so that a worker that is late costs nothing.

use std::any::Any;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError, TryLockError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// How long a worker waits awake for the next job.
const PATIENCE: Duration = Duration::from_micros(200);

/// Looks at the job's number between two looks at the clock.
const LOOKS: usize = 64;

/// The workers, and the job they are at. One job at a time.
struct Pool {
    /// Held by whoever has given the job.
    turn: Mutex<()>,
    /// The job, while there is one.
    job: Mutex<Option<&'static Work<'static>>>,
    /// How many jobs there have been: tells workers that there is a new one.
    number: Apart<AtomicUsize>,
    workers: OnceLock<Vec<Worker>>,
}

/// On cache lines of its own: what workers look at all the time would be slow to write to for others.
#[repr(align(128))]
struct Apart<T>(T);

struct Worker {
    thread: Thread,
    asleep: &'static AtomicBool,
}

/// A job: parts to be done, counted from 0; each is taken by adding 1 to `next`. Lives on the stack of whoever gives it.
struct Work<'a> {
    body: &'a (dyn Fn(usize) + Sync),
    parts: usize,
    next: AtomicUsize,
    /// Workers that know of it.
    users: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Work<'_> {
    /// Does parts until none is left.
    fn help(&self) {
        loop {
            let part = self.next.fetch_add(1, Ordering::Relaxed);
            if part >= self.parts {
                return;
            }
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.body)(part))) {
                *lock(&self.panic) = Some(panic);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

static POOL: Pool =
    Pool { turn: Mutex::new(()), job: Mutex::new(None), number: Apart(AtomicUsize::new(0)), workers: OnceLock::new() };

/// Calls `body` for each part from 0 to `parts`, on this thread and on those of the pool. While the pool is busy with
/// another job, on this thread only.
///
/// # Panics
/// If `body` does, after all parts are done.
pub fn each_part(parts: usize, body: &(dyn Fn(usize) + Sync)) {
    let work = Work { body, parts, next: AtomicUsize::new(0), users: AtomicUsize::new(0), panic: Mutex::new(None) };
    let turn = match POOL.turn.try_lock() {
        Ok(turn) => Some(turn),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    };
    match &turn {
        Some(_) if parts > 1 => {
            // SAFETY: only the lifetime is changed. Workers reach `work` through `POOL.job` alone, where they count themselves
            // among its users before they let go of the lock; it is taken away from there, and no user is left, before
            // `withdraw` returns, which is before `work` and `body` end: nothing in between can panic (`help` catches).
            POOL.offer(unsafe { &*(&raw const work).cast::<Work<'static>>() });
            work.help();
            POOL.withdraw(&work);
        }
        _ => work.help(),
    }
    drop(turn);
    if let Some(panic) = lock(&work.panic).take() {
        resume_unwind(panic);
    }
}

impl Pool {
    fn offer(&'static self, work: &'static Work<'static>) {
        let workers = self.workers.get_or_init(|| {
            let count = thread::available_parallelism().map_or(1, NonZero::get) - 1;
            // A machine that gives no threads has the caller's.
            (0..count).filter_map(|_| self.hire()).collect()
        });
        *lock(&self.job) = Some(work);
        // In one order with what `asleep` says, so that no worker falls asleep unseen.
        self.number.0.fetch_add(1, Ordering::SeqCst);
        for worker in workers.iter().take(work.parts - 1) {
            if worker.asleep.swap(false, Ordering::SeqCst) {
                worker.thread.unpark();
            }
        }
    }

    /// Takes the job away, and waits for those who are at it.
    fn withdraw(&self, work: &Work<'_>) {
        *lock(&self.job) = None;
        let mut looks = 0;
        while work.users.load(Ordering::Acquire) > 0 {
            looks += 1;
            // The worker may have lost its processor to something else: let it have this one.
            if looks % (LOOKS * LOOKS) == 0 { thread::yield_now() } else { std::hint::spin_loop() }
        }
    }

    fn hire(&'static self) -> Option<Worker> {
        let asleep: &'static AtomicBool = Box::leak(Box::default());
        let body = move || self.serve(asleep);
        let handle = thread::Builder::new().name("isonorm-kernels".to_owned()).spawn(body).ok()?;
        Some(Worker { thread: handle.thread().clone(), asleep })
    }

    /// A worker's life.
    fn serve(&self, asleep: &AtomicBool) {
        let mut known = 0;
        loop {
            known = self.await_job(known, asleep);
            let work = {
                let job = lock(&self.job);
                let Some(work) = *job else { continue };
                work.users.fetch_add(1, Ordering::Relaxed);
                work
            };
            work.help();
            work.users.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits until there has been another job than the `known`; answers which.
    fn await_job(&self, known: usize, asleep: &AtomicBool) -> usize {
        loop {
            let start = Instant::now();
            while start.elapsed() < PATIENCE {
                for _ in 0..LOOKS {
                    let number = self.number.0.load(Ordering::Acquire);
                    if number != known {
                        return number;
                    }
                    std::hint::spin_loop();
                }
            }
            asleep.store(true, Ordering::SeqCst);
            while self.number.0.load(Ordering::SeqCst) == known && asleep.load(Ordering::SeqCst) {
                thread::park();
            }
            asleep.store(false, Ordering::SeqCst);
        }
    }
}
