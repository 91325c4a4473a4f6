//! Both doors, each with a well-behaved kernel and with kernels that misbehave in every way we know of.

mod executed;
mod in_process;
mod plugin;

use isonorm_harness::run::{Answer, Conduct, Outcome, Request, TensorArg};
use isonorm_kernels::abi::{Direction, Dtype, Value};

/// A dense f32 tensor.
fn tensor(name: &str, shape: &[usize], values: &[f32]) -> TensorArg {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    let span = shape.iter().product();
    let data = bytes(values);
    TensorArg { name: name.into(), dtype: Dtype::F32, shape: shape.into(), strides, span, data, alias: None }
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&chunk| f32::from_le_bytes(chunk)).collect()
}

/// A forward call of RMSNorm on `rows` rows of `columns` f32 numbers.
fn rms_norm(rows: usize, columns: usize) -> Request {
    let x: Vec<f32> = (0..rows * columns).map(|i| (i as f32 * 0.7).sin() + 0.25).collect();
    let weight: Vec<f32> = (0..columns).map(|i| 1.0 + i as f32 / 8.0).collect();
    Request {
        operator: "rms_norm".into(),
        direction: Direction::Forward,
        sizes: vec![("r".into(), rows), ("d".into(), columns)],
        attributes: vec![
            ("eps".into(), Value::Real(1e-5)),
            ("normalized_ndim".into(), Value::Integer(1)),
            ("cast".into(), Value::Text("none".into())),
        ],
        inputs: vec![tensor("x", &[rows, columns], &x), tensor("weight", &[columns], &weight)],
        outputs: vec![tensor("y", &[rows, columns], &[])],
        threads: 1,
        prelude: None,
    }
}

/// The same call with rows that have two elements of memory between them.
fn with_gaps(mut request: Request) -> Request {
    let y = &mut request.outputs[0];
    let (rows, columns) = (y.shape[0], y.shape[1]);
    y.strides = vec![columns + 2, 1];
    y.span = rows * columns + (rows - 1) * 2;
    request
}

/// The same call, preceded by one with other numbers at the same addresses.
fn with_prelude(mut request: Request) -> Request {
    let other =
        |input: &TensorArg| bytes(&floats(&input.data).iter().map(|value| value * value - 0.5).collect::<Vec<_>>());
    request.prelude = Some(request.inputs.iter().map(other).collect());
    request
}

/// The same call in place.
fn in_place(mut request: Request) -> Request {
    request.outputs[0].alias = Some(0);
    request
}

/// What RMSNorm gives, in f64.
fn expected(request: &Request) -> Vec<f64> {
    let columns = request.inputs[0].shape[1];
    let (x, weight) = (floats(&request.inputs[0].data), floats(&request.inputs[1].data));
    let row = |row: &[f32]| -> Vec<f64> {
        let mean = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / columns as f64;
        let scale = (mean + 1e-5).sqrt().recip();
        row.iter().zip(&weight).map(|(&x, &weight)| f64::from(x) * scale * f64::from(weight)).collect()
    };
    x.chunks(columns).flat_map(row).collect()
}

fn answer(outcome: Outcome) -> Answer {
    match outcome {
        Outcome::Answered(answer) => answer,
        other => panic!("no answer but {other:?}"),
    }
}

fn conduct(outcome: Outcome) -> Vec<Conduct> {
    answer(outcome).conduct
}

/// That the kernel answers rightly and does nothing else.
fn assert_well_behaved(outcome: Outcome, request: &Request) {
    let answer = answer(outcome);
    assert_eq!(answer.conduct, []);
    let got = floats(&answer.outputs[0]);
    let expected = expected(request);
    assert_eq!(request.outputs[0].offsets().count(), expected.len());
    for (offset, expected) in request.outputs[0].offsets().zip(expected) {
        let error = (f64::from(got[offset]) - expected).abs();
        assert!(error <= 1e-6 * expected.abs(), "{} instead of {expected}", got[offset]);
    }
}
