//! Cases that were once wrong, in `harness/cases`, asked of every built-in kernel again.

use std::path::Path;
use std::sync::Arc;

use isonorm_harness::campaign::{Examiner, Trial};
use isonorm_harness::case::Case;
use isonorm_harness::run::{Contender, InProcess};
use isonorm_kernels::abi::{Call, Kernel, KernelInfo, Refusal};

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let mut cases = Vec::new();
    for file in std::fs::read_dir(&folder).expect("the folder of cases") {
        let path = file.expect("an entry").path();
        let text = std::fs::read_to_string(&path).expect("a readable file");
        for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
            cases.push(line.parse().unwrap_or_else(|error| panic!("{}: {line}: {error}", path.display())));
        }
    }
    cases
}

fn ask(kernel: Arc<dyn Kernel>, case: &Case) -> Option<Trial> {
    let info = kernel.info().clone();
    let suits = info.operator == case.problem.operator.name
        && info.direction == case.problem.direction
        && info.dtypes.contains(&case.problem.dtypes);
    suits.then(|| Examiner::new(info, InProcess::new(kernel).open().expect("it opens")).examine(case, true))
}

#[test]
fn what_was_once_wrong_stays_right() {
    let cases = cases();
    assert!(!cases.is_empty());
    for case in &cases {
        let trials: Vec<Trial> =
            isonorm_kernels::builtin().into_iter().filter_map(|kernel| ask(kernel, case)).collect();
        assert!(!trials.is_empty(), "no built-in kernel answers {case}");
        for trial in trials {
            let messages: Vec<&str> = trial.flaws.iter().map(|flaw| flaw.message.as_str()).collect();
            assert!(messages.is_empty(), "{case}: {messages:?}");
        }
    }
}

/// A kernel that answers nothing but leaves its outputs as they are.
struct Idle(Arc<dyn Kernel>);

impl Kernel for Idle {
    fn info(&self) -> &KernelInfo {
        self.0.info()
    }

    fn run(&self, _: &Call<'_>) -> Result<(), Refusal> {
        Ok(())
    }
}

#[test]
fn a_kernel_that_does_nothing_fails_every_one_of_them() {
    for case in cases() {
        let idle = isonorm_kernels::builtin().into_iter().map(|kernel| Arc::new(Idle(kernel)) as Arc<dyn Kernel>);
        for trial in idle.filter_map(|kernel| ask(kernel, &case)) {
            assert!(trial.failed(), "{case}");
        }
    }
}
