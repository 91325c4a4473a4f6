//! The criterion suite: our kernels, libtorch and a copy of as many bytes, one after the other.
//!
//! Ids are `operator/direction/dtype/shape[-channels_last]/tN/contender` with N threads and `ours`, `libtorch` or `copy`. They
//! stay the same from version to version, so that criterion's baselines compare:
//!
//! ```console
//! $ cargo bench -p isonorm-harness -- --save-baseline before 'layer_norm/forward'
//! $ cargo bench -p isonorm-harness -- --baseline before 'layer_norm/forward'
//! ```
//!
//! The default suite is every built-in kernel in f32 on one thread, on a shape that fits in a cache and on one that does not.
//! With `ISONORM_BENCH=full` it is all dtypes, shapes, layouts and numbers of threads of `isonorm bench`: give a filter then.
//! To decide which of two is faster, use the paired mode: `cargo isonorm bench`.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Bencher, Criterion, Throughput};
use isonorm_harness::bench::check::{self, Checked};
use isonorm_harness::bench::copy::Copy;
use isonorm_harness::bench::kernel::{Callable, KernelCall};
use isonorm_harness::bench::libtorch::{self, Libtorch};
use isonorm_harness::bench::workload::{self, Workload};
use isonorm_harness::bench::{self, Timed, memory};
use isonorm_harness::campaign::Entry;
use isonorm_harness::case::Materialised;
use isonorm_harness::generate::layouts::Layout;
use isonorm_harness::machine;
use isonorm_harness::run::InProcess;
use isonorm_kernels::abi::{Dtype, DtypeSet};
use isonorm_oracles::interpret::cost::cost;

/// Groups of channels.
const GROUPS: usize = 32;

fn main() {
    memory::keep_freed_blocks();
    let full = std::env::var_os("ISONORM_BENCH").is_some_and(|suite| suite == "full");
    let quick = Criterion::default().warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    let mut criterion = quick.sample_size(20).configure_from_args();
    for kernel in isonorm_kernels::builtin() {
        let contender = Arc::new(InProcess::new(kernel));
        let entry = Entry::new(contender, machine::cores()).expect("built-in kernels claim operators that there are");
        for workload in workloads(&entry, full) {
            three(&mut criterion, &entry, &workload);
        }
    }
    criterion.final_summary();
}

/// What a kernel is timed on.
fn workloads(entry: &Entry, full: bool) -> Vec<Workload> {
    let info = entry.contender.info();
    let usual = workload::usual_shapes(entry.operator, entry.contender.device());
    // The second one fits in a core's own cache, the one before the last does not fit in any, or is the largest but one.
    let shapes = if full { usual } else { vec![usual[1].clone(), usual[usual.len().saturating_sub(2).max(2)].clone()] };
    let dtypes = if full { info.dtypes.clone() } else { vec![DtypeSet::uniform(Dtype::F32)] };
    let layouts = if full { workload::usual_layouts(info, entry.operator) } else { vec![Layout::Contiguous] };
    let threads = if full { vec![1, machine::cores()] } else { vec![1] };
    let mut workloads = Vec::new();
    for &dtypes in &dtypes {
        for shape in &shapes {
            let plain = Workload::new(entry.operator, info.direction, dtypes, shape, GROUPS).expect("usual shapes fit");
            for &layout in &layouts {
                let Some(laid_out) = plain.clone().with_layout(layout) else { continue };
                workloads.extend(threads.iter().map(|&threads| laid_out.clone().with_threads(threads)));
            }
        }
    }
    workloads
}

/// The three contenders on one workload, each made only if it is asked for, the kernel judged before it is timed.
fn three(criterion: &mut Criterion, entry: &Entry, workload: &Workload) {
    let sample: OnceCell<Box<Materialised>> = OnceCell::new();
    let sample = || {
        &**sample.get_or_init(|| match check::sample(entry, workload, "") {
            Ok(Checked::Right(sample)) => sample,
            Ok(Checked::Declined(why)) => panic!("{} declines: {why}", entry.name),
            Ok(Checked::Wrong(findings)) => panic!("{} is wrong: {}", entry.name, findings[0].replay),
            Err(error) => panic!("{error}"),
        })
    };
    let cost = cost(&workload.case.problem);
    let bytes = cost.bytes_read + cost.bytes_written;
    let id = workload.id();
    // Criterion puts the parts together again.
    let parts: Vec<&str> = id.splitn(4, '/').collect();
    let mut group = criterion.benchmark_group(parts[..3].join("/"));
    group.throughput(Throughput::Bytes(bytes));
    group.bench_function(format!("{}/ours", parts[3]), |bencher| {
        let kernel = Callable::of(&*entry.contender).expect("built in");
        time(bencher, &mut KernelCall::new(kernel, workload, sample(), false).expect("room for its tensors"));
    });
    if libtorch::offers(workload) {
        group.bench_function(format!("{}/libtorch", parts[3]), |bencher| {
            tch::set_num_threads(workload.case.threads as i32);
            let libtorch = Libtorch::new(workload, sample(), tch::Device::Cpu).expect("libtorch answers");
            bench::reserve(bytes).expect("room for what it allocates");
            time(bencher, &mut libtorch.expect("it offers the operator"));
        });
    }
    group.bench_function(format!("{}/copy", parts[3]), |bencher| {
        time(bencher, &mut Copy::new(bytes, workload.case.threads).expect("room for two arrays"));
    });
    group.finish();
}

fn time(bencher: &mut Bencher<'_>, contender: &mut dyn Timed) {
    bencher.iter_custom(|iterations| {
        let repeat = |call: &mut dyn FnMut() -> Result<(), String>| {
            let started = Instant::now();
            (0..iterations).for_each(|_| call().expect("it has answered before"));
            started.elapsed()
        };
        let whole = repeat(&mut || contender.call());
        if !contender.has_surcharge() {
            return whole;
        }
        whole.saturating_sub(repeat(&mut || contender.surcharge())).max(Duration::from_nanos(1))
    });
}
