//! Reading, writing and materialising cases.

use isonorm_kernels::abi::Direction;
use isonorm_oracles::operators::OPERATORS;
use isonorm_oracles::storage;
use proptest::prelude::*;

use super::*;
use crate::generate::families::FAMILIES;
use crate::generate::{cases, tests::everything};

#[test]
fn the_line_reads_back() {
    for operator in OPERATORS {
        for direction in Direction::ALL {
            let config = ProptestConfig { failure_persistence: None, cases: 300, ..ProptestConfig::default() };
            let mut runner = proptest::test_runner::TestRunner::new(config);
            let result = runner.run(&cases(operator, &everything(direction)), |case| {
                let line = case.to_string();
                let read: Case = line.parse().map_err(|error| TestCaseError::fail(format!("{line}: {error}")))?;
                prop_assert_eq!(&read, &case);
                prop_assert_eq!(read.to_string(), line);
                Ok(())
            });
            result.unwrap_or_else(|error| panic!("{error}"));
        }
    }
}

#[test]
fn the_documented_line_is_a_case() {
    let line = "layer_norm:forward dtype=bf16:f32 r=2x3 d=5x7 eps=1e-5 with=weight,bias family=normal \
                layout=x:row_gap in_place=y:x threads=2 refreshed seed=42";
    assert_eq!(line.parse::<Case>().expect("a case").to_string(), line);
}

#[test]
fn what_is_left_out_has_a_default() {
    let case: Case = "rms_norm r=- d=3".parse().expect("a case");
    assert_eq!(case.to_string(), "rms_norm:forward dtype=f32 r=- d=3 eps=1e-5 cast=none family=normal seed=0");
}

#[test]
fn a_wrong_line_is_answered_with_a_sentence() {
    for (line, expected) in [
        ("", "a case starts with an operator"),
        ("layernorm:forward d=3", "there is no operator `layernorm`; did you mean `layer_norm`?"),
        ("qqq", "there is no operator `qqq`; it can be layer_norm, rms_norm"),
        ("rms_norm:sideways", "`direction` says `sideways`; it can be forward or backward"),
        ("rms_norm:forward r=2", "rms_norm: axis `d` has no size"),
        ("rms_norm:forward r=2 d=three", "in `d=three`: `three` is not a size"),
        ("rms_norm:forward r=2 d=-", "axis `d` can have 1 to 3 dimensions, not 0"),
        ("rms_norm:forward r=2 d=3 d=4", "`d` is given twice"),
        ("rms_norm:forward r=2 d=3 eps=-1", "in `eps=-1`: it can be a number from 0"),
        ("rms_norm:forward r=2 d=3 cast=lama", "in `cast=lama`: it can be none, llama, gemma"),
        ("rms_norm:forward r=2 d=3 with=wieght", "there is no optional input `wieght`; did you mean `weight`?"),
        ("rms_norm:forward r=2 d=3 dtype=f8", "in `dtype=f8`: `dtypes` says `f8`; it can be f32, f64, bf16 or f16"),
        ("rms_norm:forward r=2 d=3 family=norml", "there is no value family `norml`; did you mean `normal`?"),
        ("rms_norm:forward r=2 d=3 sed=4", "there is no key `sed`; did you mean `seed`?"),
        ("rms_norm:forward r=2 d=3 seed=-4", "`-4` is not a whole number"),
        ("rms_norm:forward r=2 d=3 wobbly", "`wobbly` is neither `refreshed` nor key=value"),
        ("rms_norm:forward r=2 d=3 threads=0", "threads is 0; it can be 1 to 1024"),
        ("rms_norm:forward r=2 d=3 layout=x", "`x` is no pair such as x:row_gap"),
        ("rms_norm:forward r=2 d=3 layout=x:weird", "`weird` is not a layout; it can be contiguous, row_gap"),
        ("rms_norm:forward r=2 d=3 layout=z:step", "layout names `z`, which this case has not; it has x, y"),
        ("rms_norm:forward r=2 d=3 layout=y:expanded", "output `y` cannot be expanded"),
        ("rms_norm:forward r=- d=3 layout=x:row_gap", "row_gap needs 2 dimensions, `x` has 1"),
        ("rms_norm:forward r=2 d=3x4 layout=x:channels_last", "the second dimension of `x` is not channels"),
        ("rms_norm:forward r=2 d=3 in_place=y:weight", "in_place cannot be y:weight here; it can be y:x"),
        ("rms_norm:forward r=2 d=3 in_place=y:x layout=x:expanded", "cannot lie over `x`"),
        ("rms_norm:forward r=2 d=3 in_place=y:x layout=y:step", "leave out its own layout"),
        ("add_rms_norm r=2 d=3 in_place=y:x,residual_out:x", "two outputs cannot lie over `x`"),
        ("batch_norm n=2 c=3 s=-", "give either momentum or num_batches_tracked"),
        ("rms_norm r=4294967296 d=4294967296", "the sizes multiply to more than"),
        ("rms_norm r=0 d=99999999999999999999", "is not a size"),
    ] {
        match line.parse::<Case>() {
            Ok(case) => panic!("`{line}` is read as {case}"),
            Err(error) => assert!(error.to_string().contains(expected), "`{line}`: {error}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_line_is_too_strange(line in "(rms_norm|batch_norm):(forward|backward)( [a-z_]{1,9}=[-a-z0-9:,x.]{0,9}){0,5}") {
        // Read or refused, but not with a panic.
        if let Ok(case) = line.parse::<Case>() {
            prop_assert_eq!(case.validate(), Ok(()));
        }
    }
}

#[test]
fn gaps_hold_nan_and_shared_elements_agree() {
    let line = "layer_norm r=3 d=4 with=weight layout=x:row_gap,weight:step";
    let made = materialise(&line.parse().expect("a case"));
    let x = &made.request.inputs[0];
    assert_eq!((&x.strides[..], x.span), (&[7, 1][..], 18));
    let memory = storage::decode(x.dtype, &x.data);
    let gaps: Vec<usize> = (0..18).filter(|&at| memory[at].is_nan()).collect();
    assert_eq!(gaps, [4, 5, 6, 11, 12, 13]);
    assert_eq!(dense(x, &x.data), made.inputs[0]);
    assert_eq!((&made.request.inputs[1].strides[..], made.request.inputs[1].span), (&[2][..], 7));

    let made = materialise(&"layer_norm:backward r=3 d=4 layout=dy:expanded_fully,x:expanded".parse().expect("a case"));
    let [dy, x] = &made.request.inputs[..] else { panic!("two inputs") };
    assert_eq!((&dy.strides[..], dy.span, dy.data.len()), (&[0, 0][..], 1, 4));
    assert!(made.inputs[0].iter().all(|value| *value == made.inputs[0][0]));
    assert_eq!((&x.strides[..], x.span), (&[0, 1][..], 4));
    assert!(made.inputs[1].chunks(4).all(|row| row == &made.inputs[1][..4]));
}

#[test]
fn channels_last_is_what_frameworks_call_so() {
    let line = "batch_norm n=2 c=3 s=4x5 momentum=0.1 layout=x:channels_last,y:channels_last";
    let made = materialise(&line.parse().expect("a case"));
    assert_eq!(made.request.inputs[0].strides, [60, 1, 15, 3]);
    assert_eq!(made.request.outputs[0].strides, [60, 1, 15, 3]);
    assert_eq!(made.request.outputs[0].span, 120);
    let made = materialise(&"layer_norm r=2x3 d=4 layout=x:transposed".parse().expect("a case"));
    assert_eq!(made.request.inputs[0].strides, [12, 1, 3]);
}

#[test]
fn a_prelude_has_other_numbers_in_the_same_layout() {
    let made = materialise(&"rms_norm r=3 d=4 with=weight layout=x:row_gap refreshed".parse().expect("a case"));
    let prelude = made.request.prelude.expect("refreshed");
    for (input, other) in made.request.inputs.iter().zip(&prelude) {
        let (now, then) = (dense(input, &input.data), dense(input, other));
        assert!(now.iter().zip(&then).all(|(now, then)| now != then), "`{}`", input.name);
    }
}

/// The bytes of some cases, on any machine, in any version. A change here makes old records meaningless: it needs a new
/// major version.
#[test]
fn bytes_are_the_same_everywhere() {
    let hash = |line: &str| {
        let made = materialise(&line.parse().expect("a case"));
        let prelude = made.request.prelude.into_iter().flatten();
        let bytes = made.request.inputs.into_iter().map(|input| input.data).chain(prelude).flatten();
        bytes.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
    };
    let golden = [
        (
            "layer_norm:backward dtype=bf16:f32 r=2x3 d=5x7 with=weight,bias layout=x:row_gap refreshed seed=42",
            0x6cce6f160516efcbu64,
        ),
        ("rms_norm:forward dtype=f16 r=4 d=33 with=weight family=exact seed=7", 0x1de9cc12b2c4bc9c),
        (
            "batch_norm:forward dtype=f64 n=2 c=3 s=4 momentum=0.1 with=running_mean,running_var family=huge seed=1",
            0x8142d8ed3aebeb3f,
        ),
        ("group_norm:forward n=2 g=3 k=2 s=5 with=weight,bias family=large_mean seed=123456789", 0x0df4c07cd11b46dd),
    ];
    let every = |half: &str| {
        let lines = FAMILIES.map(|family| format!("{half} family={} seed=5", family.name));
        lines.iter().fold(0, |sum: u64, line| sum.wrapping_mul(31).wrapping_add(hash(line)))
    };
    assert_eq!(every("layer_norm:backward dtype=bf16:f32 r=9 d=6 with=weight,bias"), 2_505_387_661_071_610_343);
    assert_eq!(
        every("batch_norm_inference:forward dtype=f64 n=3 c=9 s=2 with=weight,bias"),
        11_195_510_385_682_541_740
    );
    let now: Vec<(&str, u64)> = golden.iter().map(|(line, _)| (*line, hash(line))).collect();
    assert_eq!(now, golden, "{now:#x?}");
}
