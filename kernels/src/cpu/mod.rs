//! The kernels for the CPU.
//!
//! Operators that normalize alike are a family, with one reduction stage and one map stage: [`rows`] (statistics
//! along the last axes) and [`channels`] (statistics per channel of a batch, or per group of channels of a sample). An
//! operator is a short file in its family.
//!
//! All sums are blocked (see [`simd::sum`](crate::simd::sum)) and all totals are `f64`; results do not depend on the
//! number of threads, bit by bit.

pub mod arguments;
pub mod channels;
pub mod moments;
pub mod parallel;
mod pool;
pub mod rows;
pub mod views;

use std::sync::Arc;

use crate::abi::{Call, Direction, Dtype, DtypeSet, Kernel, KernelInfo, Layouts, Reduction, Refusal, Rsqrt};

/// A kernel of this crate.
struct Builtin {
    info: KernelInfo,
    run: Run,
}

/// Computes the outputs of a call.
pub(crate) type Run = fn(&Call<'_>) -> Result<(), Refusal>;

impl Kernel for Builtin {
    fn info(&self) -> &KernelInfo {
        &self.info
    }

    fn run(&self, call: &Call<'_>) -> Result<(), Refusal> {
        let asked = (call.operator(), call.direction());
        if asked != (&self.info.operator, self.info.direction.name()) {
            return Err(Refusal::Unsupported(format!("{} is not {} {}", self.info.name, asked.0, asked.1)));
        }
        (self.run)(call)
    }
}

/// All kernels of this crate.
pub fn builtin() -> Vec<Arc<dyn Kernel>> {
    let channel = Layouts::ANY;
    let row = Layouts { channels_last: false, ..Layouts::ANY };
    let kernels: &[(&str, Layouts, Run, Run)] = &[
        ("layer_norm", row, rows::layer_norm::forward, rows::layer_norm::backward),
        ("rms_norm", row, rows::rms_norm::forward, rows::rms_norm::backward),
        ("partial_rms_norm", row, rows::partial_rms_norm::forward, rows::partial_rms_norm::backward),
        ("crms_norm", row, rows::crms_norm::forward, rows::crms_norm::backward),
        ("add_layer_norm", row, rows::add_layer_norm::forward, rows::add_layer_norm::backward),
        ("add_rms_norm", row, rows::add_rms_norm::forward, rows::add_rms_norm::backward),
        ("l2_normalize", row, rows::l2_normalize::forward, rows::l2_normalize::backward),
        ("batch_norm", channel, channels::batch_norm::forward, channels::batch_norm::backward),
        (
            "batch_norm_inference",
            channel,
            channels::batch_norm_inference::forward,
            channels::batch_norm_inference::backward,
        ),
        ("group_norm", channel, channels::group_norm::forward, channels::group_norm::backward),
        ("instance_norm", channel, channels::instance_norm::forward, channels::instance_norm::backward),
    ];
    kernels
        .iter()
        .flat_map(|&(operator, layouts, forward, backward)| {
            [(Direction::Forward, forward), (Direction::Backward, backward)]
                .map(|(direction, run)| Arc::new(builtin_kernel(operator, direction, layouts, run)) as Arc<dyn Kernel>)
        })
        .collect()
}

fn builtin_kernel(operator: &str, direction: Direction, layouts: Layouts, run: Run) -> Builtin {
    let mixed = [Dtype::Bf16, Dtype::F16].map(|data| DtypeSet { data, param: Dtype::F32 });
    Builtin {
        info: KernelInfo {
            name: format!("isonorm.{operator}.{direction}"),
            operator: operator.to_owned(),
            direction,
            dtypes: Dtype::ALL.into_iter().map(DtypeSet::uniform).chain(mixed).collect(),
            layouts,
            precision: None,
            // `simd::sum`: 32 terms in a lane, a tree of at most 64 lanes, the blocks of at least 256 elements in sequence.
            // Gradients of parameters: at most 64 rows, then blocks of 64 such parts, then those in sequence.
            reduction: Reduction::Blocked(64),
            rsqrt: Rsqrt::Exact,
            thread_safe: true,
        },
        run,
    }
}
