//! What launches run: compiled, parsed, and checked against the arguments of the manifest.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use isonorm_cuda::compile::{Cache, Compiled, Language, Source};
use isonorm_cuda::launch::{Extent, Given, Step};
use isonorm_ptx::Module;

use crate::run::Outcome;

/// A launch, compiled and parsed.
pub(super) struct Built {
    pub(super) compiled: Compiled,
    pub(super) module: Module,
}

/// What was built of a source so far, by launches that want the same.
pub(super) struct Modules {
    pub(super) source: Source,
    cache: Cache,
    built: Mutex<HashMap<String, Arc<Once>>>,
}

type Once = OnceLock<Result<Arc<Built>, String>>;

impl Modules {
    pub(super) fn new(source: Source, cache: Cache) -> Self {
        Modules { source, cache, built: Mutex::default() }
    }

    /// What a launch runs; built once, whoever asks first.
    pub(super) fn build(&self, step: &Step, aligned: bool) -> Result<Arc<Built>, String> {
        // Triton looks at whether a number is 1 or a multiple of 16.
        let looked_at = |given: &Given| match (self.source.language, given.integer()) {
            (Language::Triton, Some(value)) => format!("{} {} {}", given.kind(), value == 1, value % 16 == 0),
            _ => given.kind(),
        };
        let kinds: Vec<String> = step.arguments.iter().map(looked_at).collect();
        let Step { entry, constants, num_warps, num_stages, .. } = step;
        let key = format!("{entry} {kinds:?} {constants:?} {num_warps:?} {num_stages:?} {aligned}");
        let once = Arc::clone(self.built.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default());
        once.get_or_init(|| {
            let compiled = self.source.compile(step, aligned, &self.cache).map_err(|error| error.to_string())?;
            let module = Module::parse(&compiled.ptx)
                .map_err(|error| format!("the PTX of `{}` has what the executor does not know: {error}", step.entry))?;
            fits(&module, &compiled, step)?;
            Ok(Arc::new(Built { compiled, module }))
        })
        .clone()
    }
}

/// Whether the arguments of a launch are those that the compiled kernel takes.
fn fits(module: &Module, compiled: &Compiled, step: &Step) -> Result<(), String> {
    let Some(sizes) = module.parameters(&compiled.name) else {
        let known: Vec<&str> = module.kernels().collect();
        return Err(format!("the PTX has no kernel `{}`; it has {}", compiled.name, known.join(", ")));
    };
    let (entry, left) = (&step.entry, left(compiled, step));
    let wanted = sizes.len().saturating_sub(compiled.nulls);
    if left.len() != wanted {
        return Err(format!("`arguments` has {} of them, and `{entry}` takes {wanted}", left.len()));
    }
    match left.iter().zip(&sizes).position(|((_, given), size)| given.size() != *size) {
        None => Ok(()),
        Some(wrong) => {
            let (place, given) = left[wrong];
            let (kind, bytes, size) = (given.kind(), given.size(), sizes[wrong]);
            let place = place + 1;
            Err(format!(
                "argument {place} of `{entry}` is {kind}, of {bytes} bytes, and the kernel's parameter has {size}"
            ))
        }
    }
}

/// The arguments that the compiled kernel still takes, with their places in the manifest.
fn left<'a>(compiled: &Compiled, step: &'a Step) -> Vec<(usize, &'a Given)> {
    let kept = |place: &usize| compiled.arguments.as_ref().is_none_or(|kept| kept.contains(place));
    step.arguments.iter().enumerate().filter(|(place, _)| kept(place)).collect()
}

/// All arguments of the compiled kernel, in order.
pub(super) fn arguments<'a>(compiled: &Compiled, step: &'a Step) -> impl Iterator<Item = &'a Given> {
    let nulls = std::iter::repeat_n(&Given::Null, compiled.nulls);
    left(compiled, step).into_iter().map(|(_, given)| given).chain(nulls)
}

/// How a launch is divided: as the manifest says, or else its compiler.
///
/// # Errors
/// If neither says how many threads a block has.
pub(super) fn extent(compiled: &Compiled, step: &Step) -> Result<Extent, Outcome> {
    let no_block = || Outcome::NotRun(format!("`{}` has no `block`, and its compiler does not say one", step.entry));
    Ok(Extent {
        grid: step.grid,
        block: step.block.or(compiled.block).ok_or_else(no_block)?,
        cluster: step.cluster.or(compiled.cluster).unwrap_or([1; 3]),
        shared: step.shared.or(compiled.shared).unwrap_or(0),
    })
}
