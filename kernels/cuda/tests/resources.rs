//! What the assembler makes of the built-in kernels: no spills, no more registers than their blocks allow, on every architecture.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use isonorm_cuda::Library;
use isonorm_cuda::compile::{CompileError, Resources, locate};
use isonorm_cuda::launch::Call;
use isonorm_kernels::abi::{Dtype, DtypeSet, Value};

/// Sizes that reach every instantiation: a multiple of every access and one of none, for every way to divide rows among threads.
const ROW_LENGTHS: [usize; 22] = [
    64, 63, 256, 255, 512, 511, 1024, 1023, 2048, 2047, 4096, 4095, 8192, 8191, 16_384, 16_383, 32_768, 32_767, 65_536,
    65_535, 262_144, 262_143,
];
/// Channels and positions, likewise: sets that registers hold, from a part of a warp up to a cluster, and sets that they do not.
const CHANNELS: [(usize, usize); 15] = [
    (64, 64),
    (63, 63),
    (132, 16),
    (132, 15),
    (132, 128),
    (132, 127),
    (132, 1024),
    (132, 1023),
    (132, 4096),
    (132, 4095),
    (132, 8192),
    (132, 8191),
    (132, 16_384),
    (132, 16_383),
    (64, 1 << 17),
];

/// Every tensor of every operator.
const TENSORS: [&str; 20] = [
    "x",
    "residual",
    "weight",
    "bias",
    "running_mean",
    "running_var",
    "y",
    "residual_out",
    "new_running_mean",
    "new_running_var",
    "dy",
    "dresidual_out",
    "dx",
    "dresidual",
    "dweight",
    "dbias",
    "gamma",
    "beta",
    "mean",
    "rstd",
];

/// The calls of an operator that lead to all its launches, for one pair of element types.
fn calls(operator: &str, dtypes: DtypeSet, arch: u32) -> Vec<Call> {
    let name = |(name, size): (&str, usize)| (name.to_owned(), size);
    let sizes: Vec<Vec<(String, usize)>> = match operator {
        "batch_norm" | "batch_norm_inference" | "instance_norm" => {
            CHANNELS.map(|(c, s)| [("n", 2), ("c", c), ("s", s)].map(name).into()).into()
        }
        "group_norm" => CHANNELS.map(|(c, s)| [("n", 2), ("g", 1), ("k", c), ("s", s)].map(name).into()).into(),
        _ => ROW_LENGTHS.map(|d| [("r", 3), ("d", d), ("k", d)].map(name).into()).into(),
    };
    let words = |words: &[&str]| words.iter().map(|word| Value::Text((*word).to_owned())).collect::<Vec<Value>>();
    let (casts, sums) = match operator {
        "rms_norm" => (words(&["none", "llama", "gemma"]), words(&["rounded"])),
        "add_layer_norm" | "add_rms_norm" => (words(&["none"]), words(&["rounded", "unrounded"])),
        _ => (words(&["none"]), words(&["rounded"])),
    };
    let mut calls = Vec::new();
    for sizes in &sizes {
        for (cast, sum) in casts.iter().flat_map(|cast| sums.iter().map(move |sum| (cast, sum))) {
            for channels_last in [false, true] {
                let attributes = [
                    ("eps", Some(Value::Real(1e-5))),
                    ("momentum", Some(Value::Real(0.1))),
                    ("num_batches_tracked", None),
                    ("cast", Some(cast.clone())),
                    ("sum", Some(sum.clone())),
                ];
                calls.push(Call {
                    sizes: sizes.clone(),
                    attributes: attributes.map(|(name, value)| (name.to_owned(), value)).into(),
                    dtypes,
                    tensors: TENSORS.map(|name| (name.to_owned(), Some(Dtype::F32))).into(),
                    channels_last,
                    sms: 132,
                    arch,
                });
            }
        }
    }
    calls
}

/// Every instantiation that the built-in manifests name for the library's architecture, with the most threads of a block.
fn instantiations(library: &Library) -> BTreeMap<String, u32> {
    let arch = library.source.arch_number();
    let mut entries = BTreeMap::new();
    for kernel in &library.kernels {
        for call in kernel.info.dtypes.iter().flat_map(|dtypes| calls(&kernel.info.operator, *dtypes, arch)) {
            let plan = kernel.plan(&call).unwrap_or_else(|error| panic!("{}: {error}", kernel.info.name));
            for step in plan.steps {
                assert!(arch >= 90 || step.cluster.is_none_or(|cluster| cluster == [1; 3]), "{}", step.entry);
                let threads = step.block.expect("a size").iter().product::<u32>();
                let entry: &mut u32 = entries.entry(step.entry).or_default();
                *entry = threads.max(*entry);
            }
        }
    }
    entries
}

/// Whether there is no NVRTC, which is said past the capture of the test harness: a skip must be seen.
fn is_skipped() -> bool {
    match locate() {
        Err(error @ CompileError::NoNvrtc(_)) => writeln!(io::stderr(), "SKIPPED: {error}").is_ok(),
        _ => false,
    }
}

/// Instantiations that are compiled together: headers are read once for all of them.
const TOGETHER: usize = 32;

/// The resources of all instantiations for an architecture, with those that break a rule.
fn judge(arch: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if is_skipped() {
        return wrong;
    }
    for mut library in Library::built_in().unwrap_or_else(|error| panic!("{error}")) {
        library.source.arch = arch.to_owned();
        let all: Vec<(String, u32)> = instantiations(&library).into_iter().collect();
        let mut most = BTreeMap::<String, (Resources, &str)>::new();
        for ((entry, threads), found) in all.iter().zip(resources(&library, &all)) {
            // A multiprocessor has 65 536 registers, given to warps by 8 for each thread.
            if found.spills > 0 || found.stack > 0 || found.registers.next_multiple_of(8) * threads > 65_536 {
                wrong.push(format!("{arch} {entry}: {found:?} with {threads} threads"));
            }
            let kernel = entry.split('<').next().unwrap_or_default().to_owned();
            let of_kernel = most.entry(kernel).or_insert((found, entry));
            if found.registers > of_kernel.0.registers {
                *of_kernel = (found, entry);
            }
        }
        println!("{arch} {}: {} instantiations; with the most registers:", library.name, all.len());
        most.values().for_each(|(found, entry)| println!("  {:3} {entry}", found.registers));
    }
    wrong
}

/// What the assembler says of all of them, in order, from all cores.
fn resources(library: &Library, all: &[(String, u32)]) -> Vec<Resources> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let parts: Vec<&[(String, u32)]> = all.chunks(TOGETHER).collect();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some(part) = parts.get(place) else { break };
                    let entries: Vec<&str> = part.iter().map(|(entry, _)| entry.as_str()).collect();
                    let of_part = library.source.resources(&entries).unwrap_or_else(|error| panic!("{error}"));
                    found.lock().expect("no panic").insert(place, of_part);
                }
            });
        }
    });
    found.into_inner().expect("no panic").into_values().flatten().collect()
}

/// On every architecture: some minutes.
#[test]
fn no_kernel_spills() {
    let wrong = ["sm_80", "sm_90", "sm_100"].map(judge).concat();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn spills_are_seen() {
    if is_skipped() {
        return;
    }
    let mut library = Library::built_in().unwrap_or_else(|error| panic!("{error}")).remove(0);
    library.source.text = "__global__ void __launch_bounds__(1024) wide(float* x) {
        float v[128];
        #pragma unroll
        for (int i = 0; i < 128; ++i) v[i] = x[i];
        __syncthreads();
        #pragma unroll
        for (int i = 0; i < 128; ++i) x[i] = v[127 - i];
    }"
    .to_owned();
    let found = library.source.resources(&["wide"]).unwrap_or_else(|error| panic!("{error}"))[0];
    assert!(found.registers == 64 && found.spills > 0, "{found:?}");
}
