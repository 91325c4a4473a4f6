//! The corpus: bugs that shipped kernels had, as small changes of the plain kernel, and clean kernels that compute
//! differently. Ids are those of the collection of public reports that the bugs were taken from; an id with a letter is a
//! variant.

mod backward;
mod clean;
mod conduct;
mod degenerate;
mod epsilon;
mod formula;
mod layout;
mod precision;
mod special;
mod statistics;
mod tails;

use std::sync::Arc;

use isonorm_kernels::abi::{Call, Direction, DtypeSet, Kernel, KernelInfo, Refusal};
use isonorm_oracles::operators::OPERATORS;

use crate::engine;
use crate::recipe::Recipe;

pub use clean::CLEAN;
pub use conduct::BLIND;

/// A planted bug.
pub struct Bug {
    /// Its name in tables.
    pub id: &'static str,
    /// What is wrong.
    pub what: &'static str,
    /// `operator:direction`
    pub of: &'static str,
    /// The types that it is tried with, separated by commas.
    pub dtypes: &'static str,
    /// Where it was seen.
    pub known: &'static str,
    /// Makes it.
    pub plant: fn(&mut Recipe),
}

/// A clean kernel that computes in its own way.
pub struct Clean {
    /// Its name.
    pub name: &'static str,
    /// Parts of the `operator:direction` that it is for.
    pub of: &'static [&'static str],
    /// The types that it serves.
    pub dtypes: &'static str,
    /// Makes it.
    pub change: fn(&mut Recipe),
}

/// All types that kernels are judged in.
pub const ALL: &str = "f32,f64,bf16,f16,bf16:f32,f16:f32";
/// Those whose arithmetic is f32.
pub const SINGLE: &str = "f32,bf16,f16,bf16:f32,f16:f32";
/// Those whose data are stored in 16 bits.
pub const HALF: &str = "bf16,f16,bf16:f32,f16:f32";

/// All bugs.
pub fn bugs() -> impl Iterator<Item = &'static Bug> {
    [
        statistics::BUGS,
        precision::BUGS,
        epsilon::BUGS,
        degenerate::BUGS,
        layout::BUGS,
        tails::BUGS,
        backward::BUGS,
        special::BUGS,
        formula::BUGS,
        conduct::BUGS,
    ]
    .into_iter()
    .flatten()
}

impl Bug {
    /// The kernel with this bug.
    pub fn kernel(&self) -> Arc<dyn Kernel> {
        kernel(self.id, self.of, self.dtypes, self.plant)
    }
}

/// A kernel by a changed recipe.
pub fn kernel(name: &str, of: &str, dtypes: &str, change: fn(&mut Recipe)) -> Arc<dyn Kernel> {
    let mut recipe = Recipe::default();
    change(&mut recipe);
    let (operator, direction) = of.split_once(':').expect("operator:direction");
    let info = KernelInfo {
        name: name.to_owned(),
        operator: operator.to_owned(),
        direction: direction.parse::<Direction>().expect("forward or backward"),
        dtypes: dtypes.split(',').map(|set| set.parse::<DtypeSet>().expect("a dtype")).collect(),
        layouts: recipe.layouts,
        precision: recipe.precision,
        reduction: recipe.reduction,
        rsqrt: recipe.rsqrt,
        thread_safe: recipe.thread_safe,
    };
    Arc::new(Planted { info, recipe })
}

struct Planted {
    info: KernelInfo,
    recipe: Recipe,
}

impl Kernel for Planted {
    fn info(&self) -> &KernelInfo {
        &self.info
    }

    fn run(&self, call: &Call<'_>) -> Result<(), Refusal> {
        let compute = |call: &Call<'_>| engine::compute(&self.recipe, call);
        match &self.recipe.around {
            Some(around) => around(call, &compute),
            None => compute(call),
        }
    }
}

impl Clean {
    /// This kernel of every operator that it is for.
    pub fn kernels(&self) -> Vec<Arc<dyn Kernel>> {
        let halves =
            OPERATORS.iter().flat_map(|operator| Direction::ALL.map(|half| format!("{}:{half}", operator.name)));
        let own = halves.filter(|of| self.of.iter().any(|part| of.contains(part)));
        own.map(|of| kernel(self.name, &of, self.dtypes, self.change)).collect()
    }
}

/// A row of the tables of bugs.
const fn bug(
    id: &'static str,
    of: &'static str,
    dtypes: &'static str,
    known: &'static str,
    what: &'static str,
    plant: fn(&mut Recipe),
) -> Bug {
    Bug { id, what, of, dtypes, known, plant }
}
