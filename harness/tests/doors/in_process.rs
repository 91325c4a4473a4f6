//! The door for built-in kernels.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use isonorm_harness::run::{Conduct, Contender, InProcess, Outcome, Place, Request};
use isonorm_kernels::abi::{
    Call, Direction, Dtype, DtypeSet, Kernel, KernelInfo, Layouts, Reduction, Refusal, Rsqrt, Tensor,
};

use super::{answer, assert_well_behaved, conduct, in_place, rms_norm, with_gaps, with_prelude};

struct Planted<F>(KernelInfo, F);

impl<F: Fn(&Call<'_>) -> Result<(), Refusal> + Send + Sync> Kernel for Planted<F> {
    fn info(&self) -> &KernelInfo {
        &self.0
    }

    fn run(&self, call: &Call<'_>) -> Result<(), Refusal> {
        self.1(call)
    }
}

fn info(thread_safe: bool) -> KernelInfo {
    KernelInfo {
        name: "planted".into(),
        operator: "rms_norm".into(),
        direction: Direction::Forward,
        dtypes: vec![DtypeSet::uniform(Dtype::F32)],
        layouts: Layouts::ANY,
        precision: None,
        reduction: Reduction::Any,
        rsqrt: Rsqrt::Exact,
        thread_safe,
    }
}

fn run(request: &Request, kernel: impl Fn(&Call<'_>) -> Result<(), Refusal> + Send + Sync + 'static) -> Outcome {
    InProcess::new(Arc::new(Planted(info(true), kernel))).open().expect("built-in kernels open").run(request)
}

fn at(tensor: &Tensor<'_>, element: isize) -> *mut f32 {
    tensor.data.cast::<f32>().wrapping_offset(element)
}

fn read(tensor: &Tensor<'_>, element: isize) -> f32 {
    // SAFETY: stays within the tensor or the canary zones around it.
    unsafe { at(tensor, element).read() }
}

fn write(tensor: &Tensor<'_>, element: isize, value: f32) {
    // SAFETY: stays within the tensor or the canary zones around it.
    unsafe { at(tensor, element).write(value) }
}

/// RMSNorm as it should be, followed by something else.
fn good_then(
    more: impl Fn(&Tensor<'_>, &Tensor<'_>) + Send + Sync + 'static,
) -> impl Fn(&Call<'_>) -> Result<(), Refusal> + Send + Sync + 'static {
    move |call| {
        let (x, weight, y) = (call.required_input("x")?, call.required_input("weight")?, call.required_output("y")?);
        let eps = call.real("eps")?;
        for row in 0..x.shape[0] {
            let value = |column: i64| f64::from(read(&x, (row * x.strides[0] + column) as isize));
            let sum: f64 = (0..x.shape[1]).map(|column| value(column).powi(2)).sum();
            let scale = (sum / x.shape[1] as f64 + eps).sqrt().recip();
            for column in 0..x.shape[1] {
                let result = value(column) * scale * f64::from(read(&weight, column as isize));
                write(&y, (row * y.strides[0] + column) as isize, result as f32);
            }
        }
        more(&x, &y);
        Ok(())
    }
}

#[test]
fn well_behaved() {
    for request in [rms_norm(3, 5), rms_norm(1, 1), rms_norm(0, 4), rms_norm(70, 513)] {
        let gaps = if request.outputs[0].is_empty() { request.clone() } else { with_gaps(request.clone()) };
        for request in [gaps, with_prelude(request.clone()), request] {
            assert_well_behaved(run(&request, good_then(|_, _| {})), &request);
        }
    }
}

#[test]
fn in_place_starts_afresh() {
    let request = in_place(rms_norm(3, 5));
    assert_well_behaved(run(&request, good_then(|_, _| {})), &request);
    let request = with_prelude(request);
    assert_well_behaved(run(&request, good_then(|_, _| {})), &request);
}

#[test]
fn writes_outside() {
    let outside = |place| vec![Conduct::WroteOutside { tensor: "y".into(), place }];
    let request = rms_norm(3, 5);
    let cases = [(15, Place::After(1)), (17, Place::After(3)), (-1, Place::Before(1)), (-4, Place::Before(4))];
    for (element, place) in cases {
        let kernel = good_then(move |_, y| write(y, element, 1.0));
        assert_eq!(conduct(run(&request, kernel)), outside(place));
    }
    let kernel = good_then(|_, y| write(y, 6, 1.0));
    assert_eq!(conduct(run(&with_gaps(request), kernel)), outside(Place::Gap(6)));
}

#[test]
fn modifies_input() {
    let kernel = good_then(|x, _| write(x, 7, 0.0));
    let expected = [Conduct::ModifiedInput { tensor: "x".into(), element: 7 }];
    assert_eq!(conduct(run(&rms_norm(3, 5), kernel)), expected);
}

#[test]
fn leaves_elements_unwritten() {
    let request = rms_norm(2, 4);
    let kernel = |call: &Call<'_>| {
        let y = call.required_output("y")?;
        (0..8).filter(|element| ![3, 7].contains(element)).for_each(|element| write(&y, element, 1.0));
        Ok(())
    };
    let expected = [Conduct::Unwritten { tensor: "y".into(), element: 3, count: 2, of: 8 }];
    assert_eq!(conduct(run(&request, kernel)), expected);
}

#[test]
fn reads_outside() {
    let kernel = good_then(|x, y| write(y, 0, read(x, 14) + read(x, 15)));
    assert!(matches!(conduct(run(&rms_norm(3, 5), kernel))[..], [Conduct::ReadOutside(_)]));
}

#[test]
fn reads_its_output() {
    let kernel = |call: &Call<'_>| {
        let y = call.required_output("y")?;
        (0..15).for_each(|element| write(&y, element, read(&y, element).max(1.0)));
        Ok(())
    };
    assert!(matches!(conduct(run(&rms_norm(3, 5), kernel))[..], [Conduct::ReadOutside(_)]));
}

#[test]
fn differs_from_call_to_call() {
    let count = AtomicU32::new(0);
    let kernel = good_then(move |_, y| write(y, 4, count.fetch_add(1, Ordering::Relaxed) as f32));
    let conduct = conduct(run(&rms_norm(3, 5), kernel));
    let [Conduct::Unrepeatable(difference)] = &conduct[..] else { panic!("{conduct:?}") };
    assert_eq!((difference.element, difference.count), (4, 1));
    assert_eq!(difference.bits, [0, 1.0f32.to_bits().into()]);
}

#[test]
fn depends_on_the_address() {
    let kernel = good_then(|x, y| write(y, 4, (x.data as usize % 64) as f32));
    let conduct = conduct(run(&rms_norm(3, 5), kernel));
    assert!(matches!(&conduct[..], [Conduct::AddressDependent(difference)] if difference.element == 4), "{conduct:?}");
}

#[test]
fn keeps_results_by_pointer() {
    // The inverse deviation of the first row is computed once for each address.
    let kept = Mutex::new(Vec::<(usize, f32)>::new());
    let kernel = good_then(move |x, y| {
        let mut kept = kept.lock().expect("no panic under this lock");
        let known = kept.iter().find(|(address, _)| *address == x.data as usize).map(|&(_, value)| value);
        write(y, 0, known.unwrap_or(read(y, 0)));
        kept.push((x.data as usize, read(y, 0)));
    });
    let conduct = conduct(run(&with_prelude(rms_norm(3, 5)), kernel));
    assert!(matches!(&conduct[..], [Conduct::Stale(difference)] if difference.element == 0), "{conduct:?}");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn changes_the_float_environment() {
    let kernel = good_then(|_, _| {
        let flush_to_zero = 0x9f80u32;
        // SAFETY: loads a valid MXCSR.
        unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const flush_to_zero) };
    });
    let conduct = conduct(run(&rms_norm(3, 5), kernel));
    let [Conduct::ChangedFloatEnvironment { change }] = &conduct[..] else { panic!("{conduct:?}") };
    assert_eq!(change, "flush-to-zero (MXCSR 0x1f80 before, 0x9f80 after)");
    assert_ne!(std::hint::black_box(f32::MIN_POSITIVE) / 2.0, 0.0, "the environment was not restored");
}

#[test]
fn panics() {
    let kernel = |call: &Call<'_>| {
        assert!(call.real("eps")? > 1.0, "eps is small");
        Ok(())
    };
    let Outcome::Crashed(crash) = run(&rms_norm(3, 5), kernel) else { panic!("no crash") };
    assert!(crash.description.contains("eps is small") && crash.description.contains("in_process.rs"), "{crash}");
}

#[test]
fn declines_and_fails() {
    let declined = run(&rms_norm(3, 5), |_| Err(Refusal::Unsupported("odd rows".into())));
    assert_eq!(declined, Outcome::Declined("odd rows".into()));
    let failed = run(&rms_norm(3, 5), |call| call.required_input("bias").map(|_| ()));
    assert_eq!(failed, Outcome::Failed("input `bias` is missing".into()));
}

#[test]
fn a_request_that_does_not_fit_is_not_run() {
    let mut short = rms_norm(3, 5);
    short.outputs[0].span = 14;
    let mut data = rms_norm(3, 5);
    data.inputs[1].data.pop();
    let mut shared = rms_norm(3, 5);
    shared.outputs[0].alias = Some(1);
    for (request, reason) in [(short, "reach beyond its span"), (data, "spans 20 bytes"), (shared, "cannot share")] {
        let outcome = run(&request, |_| unreachable!("it must not be called"));
        assert!(matches!(&outcome, Outcome::NotRun(why) if why.contains(reason)), "{outcome:?}");
    }
}

#[test]
fn kernels_that_are_not_thread_safe_run_one_at_a_time() {
    static INSIDE: AtomicUsize = AtomicUsize::new(0);
    let kernel = good_then(|_, _| {
        assert_eq!(INSIDE.fetch_add(1, Ordering::SeqCst), 0, "two calls at once");
        std::thread::yield_now();
        INSIDE.fetch_sub(1, Ordering::SeqCst);
    });
    let contender = InProcess::new(Arc::new(Planted(info(false), kernel)));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut runner = contender.open().expect("built-in kernels open");
                (0..50).for_each(|_| assert_eq!(answer(runner.run(&rms_norm(3, 5))).conduct, []));
            });
        }
    });
}
