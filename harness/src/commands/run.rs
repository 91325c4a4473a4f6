//! What verbs share that measure or judge for a while: the record that opens a run, how it is stopped, and names that are
//! looked up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use isonorm_reports::record::{self, Budget, Outcome, SCHEMA_VERSION, Shard};

use super::Error;
use crate::campaign::Entry;
use crate::machine;

/// Now, in RFC 3339.
pub(super) fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// The record that opens a whole run with libtorch, which begins now.
pub(super) fn campaign(
    selection: String,
    seed: u64,
    budget: Budget,
    threads: usize,
    gpu: Option<record::Gpu>,
) -> record::Campaign {
    record::Campaign {
        schema: SCHEMA_VERSION,
        isonorm: env!("CARGO_PKG_VERSION").to_owned(),
        revision: None,
        seed,
        shard: Shard { index: 1, of: 1 },
        budget,
        selection,
        threads: threads as u32,
        machine: record::Machine { gpu, ..machine::describe() },
        libtorch: Some(isonorm_oracles::LIBTORCH_VERSION.to_owned()),
        started: now(),
        command: std::env::args().skip(1).fold("cargo isonorm".to_owned(), |line, word| format!("{line} {word}")),
    }
}

/// The GPU that kernels run on, if they do.
pub(super) fn gpu_of(entries: &[Entry]) -> Option<record::Gpu> {
    entries.iter().find_map(|entry| entry.contender.on_gpu()).map(|kernel| machine::gpu(kernel.gpu()))
}

/// A flag that Ctrl-C sets, after it has said `what` happens now. A second one ends the program as usual.
pub(super) fn stop_on_interrupt(what: &'static str) -> Arc<AtomicBool> {
    let stop = Arc::new(AtomicBool::new(false));
    let on_interrupt = Arc::clone(&stop);
    // The handler can be set only once, and failing to set it costs nothing but the grace.
    let _ = ctrlc::set_handler(move || {
        if on_interrupt.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\n{what} is kept (again to stop at once)");
    });
    stop
}

/// The record that closes a run.
pub(super) fn end(stop: &AtomicBool) -> record::End {
    let interrupted = stop.load(Ordering::Relaxed);
    let outcome = if interrupted { Outcome::Interrupted } else { Outcome::Complete };
    record::End { outcome, finished: now() }
}

/// Names that are less alike than this are no slip of the other.
const ALIKE: f64 = 0.75;

/// Those of `all` that have these names; all if there are none. `kind` is what they are, and `isonorm list` knows their plural.
pub(super) fn named<T>(
    names: &[String],
    all: &[&'static T],
    name_of: fn(&T) -> &'static str,
    (kind, plural): (&str, &str),
) -> Result<Vec<&'static T>, Error> {
    if names.is_empty() {
        return Ok(all.to_vec());
    }
    let find = |name: &String| {
        all.iter().copied().find(|one| name_of(one) == name).ok_or_else(|| {
            let likeness = |one: &&'static T| strsim::jaro_winkler(name_of(one), name);
            let closest = all.iter().copied().max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
            let slip = closest.filter(|closest| likeness(closest) > ALIKE);
            let meant = slip.map_or_else(String::new, |slip| format!(" did you mean `{}`?", name_of(slip)));
            Error::Usage(format!("there is no {kind} `{name}`;{meant} `isonorm list {plural}` names them all"))
        })
    };
    names.iter().map(find).collect()
}
