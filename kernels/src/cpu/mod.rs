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
mod scratch;
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
        if !call.asks(&self.info.operator, self.info.direction) {
            let (operator, direction) = (call.operator(), call.direction());
            return Err(Refusal::Unsupported(format!("{} is not {operator} {direction}", self.info.name)));
        }
        (self.run)(call)
    }
}

/// An operator: what its kernels take, and the two halves.
struct Row {
    operator: &'static str,
    layouts: Layouts,
    forward: Run,
    backward: Run,
}

const CHANNELS: Layouts = Layouts::ANY;
const ROWS: Layouts = Layouts { channels_last: false, ..Layouts::ANY };

macro_rules! table {
    ($($family:ident::$operator:ident: $layouts:expr,)*) => {
        [$(Row {
            operator: stringify!($operator),
            layouts: $layouts,
            forward: $family::$operator::forward,
            backward: $family::$operator::backward,
        },)*]
    };
}

static TABLE: [Row; 11] = table! {
    rows::layer_norm: ROWS,
    rows::rms_norm: ROWS,
    rows::partial_rms_norm: ROWS,
    rows::crms_norm: ROWS,
    rows::add_layer_norm: ROWS,
    rows::add_rms_norm: ROWS,
    rows::l2_normalize: ROWS,
    channels::batch_norm: CHANNELS,
    channels::batch_norm_inference: CHANNELS,
    channels::group_norm: CHANNELS,
    channels::instance_norm: CHANNELS,
};

/// The kernel of one half of an operator.
pub(crate) fn find(operator: &str, direction: Direction) -> Option<Run> {
    let row = TABLE.iter().find(|row| row.operator == operator)?;
    Some(match direction {
        Direction::Forward => row.forward,
        Direction::Backward => row.backward,
    })
}

/// All kernels of this crate.
pub fn builtin() -> Vec<Arc<dyn Kernel>> {
    TABLE
        .iter()
        .flat_map(|row| {
            [(Direction::Forward, row.forward), (Direction::Backward, row.backward)].map(|(direction, run)| {
                Arc::new(builtin_kernel(row.operator, direction, row.layouts, run)) as Arc<dyn Kernel>
            })
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
