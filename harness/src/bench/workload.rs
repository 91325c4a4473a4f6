//! Workloads: a case as it is timed, and the small case that says what its tensors hold.

use std::collections::BTreeMap;
use std::str::FromStr;

use isonorm_kernels::abi::{Direction, DtypeSet, KernelInfo};
use isonorm_oracles::Problem;
use isonorm_oracles::operators::{AxisKind, Operator};

use crate::case::Case;
use crate::generate::layouts::Layout;
use crate::run::Device;

/// Elements of the case that is judged before anything is timed, where the shape allows so few.
const SAMPLE: usize = 1 << 16;

/// Rows of text: a token, a small batch, and sizes up to far beyond any cache.
const ROWS: [&[usize]; 6] = [&[1, 4096], &[32, 4096], &[512, 768], &[2048, 1024], &[4096, 4096], &[8192, 8192]];
/// Feature maps: the first, a middle and the last stage of a ResNet.
const IMAGES: [&[usize]; 3] = [&[32, 64, 56, 56], &[8, 256, 28, 28], &[1, 512, 7, 7]];

/// What is timed: an operator's half on tensors of one shape, type and layout, with a number of threads.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The whole of it as a case; its values are not used.
    pub case: Case,
    /// Sizes of the main input.
    pub shape: Vec<usize>,
    /// Layout of every tensor that has channels and positions.
    pub layout: Layout,
}

/// On a GPU: where launching counts, and then as many elements as leave all caches, in rows of these lengths.
const GPU_ROWS: [&[usize]; 3] = [&[1, 4096], &[32, 4096], &[2048, 1024]];
const GPU_ELEMENTS: usize = 1 << 25;
const GPU_LENGTHS: [usize; 9] = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131_072];
/// As above, and in batches that leave all caches.
const GPU_IMAGES: [&[usize]; 4] = [&[1, 512, 7, 7], &[32, 64, 56, 56], &[256, 64, 56, 56], &[256, 256, 28, 28]];

/// The shapes that an operator is timed on unless one is asked for.
pub fn usual_shapes(operator: &Operator, device: Device) -> Vec<Vec<usize>> {
    let shapes: &[&[usize]] = match (on_rows(operator), device) {
        (true, Device::Cuda) => &GPU_ROWS,
        (true, _) => &ROWS,
        (false, Device::Cuda) => &GPU_IMAGES,
        (false, _) => &IMAGES,
    };
    let long = if on_rows(operator) && device == Device::Cuda { &GPU_LENGTHS[..] } else { &[] };
    let long = long.iter().map(|&length| vec![GPU_ELEMENTS / length, length]);
    shapes.iter().map(|shape| shape.to_vec()).chain(long).collect()
}

/// The layouts that a kernel is timed on unless one is asked for.
pub fn usual_layouts(info: &KernelInfo, operator: &Operator) -> Vec<Layout> {
    let all = [Layout::Contiguous, Layout::ChannelsLast];
    let possible = |layout: &Layout| layout.allowed(&info.layouts) && (*layout == all[0] || !on_rows(operator));
    all.into_iter().filter(possible).collect()
}

/// Whether an operator works on rows of entries; others work on samples, channels and positions.
pub fn on_rows(operator: &Operator) -> bool {
    has_axis(operator, "d")
}

fn has_axis(operator: &Operator, name: &str) -> bool {
    operator.axes.iter().any(|axis| axis.name == name)
}

impl Workload {
    /// A workload on a main input of this shape: rows and the entries of a row, or samples, channels and positions. Weight
    /// and bias are given, and running statistics where training usually has them; `groups` is the number of groups of
    /// channels where the operator has groups.
    ///
    /// # Errors
    /// What does not fit, in a sentence.
    pub fn new(
        operator: &'static Operator,
        direction: Direction,
        dtypes: DtypeSet,
        shape: &[usize],
        groups: usize,
    ) -> Result<Workload, String> {
        let text = text(shape);
        let fail = |what: String| Err(format!("{} cannot have shape {text}: {what}", operator.name));
        let mut dims = BTreeMap::new();
        if on_rows(operator) {
            let Some((&d, rows)) = shape.split_last() else { return fail("give rows and entries".to_owned()) };
            dims.extend([("r", rows.to_vec()), ("d", vec![d])]);
        } else {
            let [n, c, positions @ ..] = shape else { return fail("give samples, channels and positions".to_owned()) };
            dims.extend([("n", vec![*n]), ("s", positions.to_vec())]);
            if has_axis(operator, "g") {
                if groups == 0 || c % groups != 0 {
                    return fail(format!("{c} channels do not make {groups} groups; choose with --groups"));
                }
                dims.extend([("g", vec![groups]), ("k", vec![c / groups])]);
            } else {
                dims.insert("c", vec![*c]);
            }
        }
        let mut problem = Problem {
            operator,
            direction,
            dtypes,
            dims,
            attributes: operator.default_attributes(),
            given: operator.inputs.iter().filter(|input| input.optional).map(|input| input.name).collect(),
        };
        // InstanceNorm keeps running statistics only on demand, and the backward half does not read any.
        let stateless = operator.name == "instance_norm" || direction == Direction::Backward;
        problem.given.retain(|name| {
            !(stateless && operator.inputs.iter().any(|input| input.name == *name && !input.in_backward))
        });
        // Of attributes that exclude each other the first is the usual one.
        for attribute in operator.attributes.iter().filter(|attribute| attribute.optional) {
            if problem.validate().is_err() {
                problem.attributes.insert(attribute.name, attribute.domain.default());
            }
        }
        if shape.contains(&0) {
            return fail("there is nothing to time in an empty tensor".to_owned());
        }
        let case = Case::plain(problem, 1);
        if let Err(error) = case.validate() {
            return fail(error.0);
        }
        Ok(Workload { case, shape: shape.to_vec(), layout: Layout::Contiguous })
    }

    /// The same in another layout, if its tensors can lie so.
    pub fn with_layout(mut self, layout: Layout) -> Option<Workload> {
        let problem = &self.case.problem;
        let tensors = problem.inputs().into_iter().chain(problem.outputs());
        let fit: Vec<_> = tensors.filter(|tensor| layout.check(problem, tensor).is_ok()).collect();
        if fit.is_empty() {
            return None;
        }
        if layout != Layout::Contiguous {
            self.case.layouts = fit.into_iter().map(|tensor| (tensor.name, layout)).collect();
        }
        self.layout = layout;
        Some(self)
    }

    /// The same with so many threads.
    pub fn with_threads(mut self, threads: usize) -> Workload {
        self.case.threads = threads;
        self
    }

    /// The case that is judged first, and whose values, over and over, are those of this workload: the same but for fewer
    /// rows or samples. Its tensors are beginnings of this one's tensors, in memory too.
    pub fn sample(&self) -> Case {
        let mut case = self.case.clone();
        let elements: usize = self.shape.iter().product();
        if let Some(outermost) = self.batch_axis().and_then(|axis| case.problem.dims.get_mut(axis)?.first_mut()) {
            let each = elements / *outermost;
            *outermost = (SAMPLE / each).max(2).min(*outermost);
        }
        case
    }

    /// The axis along which the sample is shorter: the outermost one in memory.
    pub fn batch_axis(&self) -> Option<&'static str> {
        let axes = self.case.problem.operator.axes;
        axes.iter().find(|axis| axis.kind == AxisKind::Batch).map(|axis| axis.name)
    }

    /// A name that stays the same from version to version: `operator/direction/dtype/shape[-channels_last]/tN`.
    pub fn id(&self) -> String {
        let Problem { operator, direction, dtypes, .. } = &self.case.problem;
        let layout = if self.layout == Layout::Contiguous { String::new() } else { format!("-{}", self.layout) };
        format!("{}/{direction}/{dtypes}/{}{layout}/t{}", operator.name, text(&self.shape), self.case.threads)
    }
}

/// Sizes of a tensor, as an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape(pub Vec<usize>);

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Shape, String> {
        let sizes: Result<Vec<usize>, _> = text.split('x').map(str::parse).collect();
        match sizes {
            Ok(sizes) if !sizes.contains(&0) => Ok(Shape(sizes)),
            _ => Err(format!("`{text}` is not a shape: give sizes above 0, such as 4096x4096 or 32x64x56x56")),
        }
    }
}

/// Sizes as people write them: `4096x4096`.
pub fn text(shape: &[usize]) -> String {
    shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x")
}
