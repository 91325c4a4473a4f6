//! The plain kernel: every operator, forward and backward, one scalar operation after the other.
//!
//! It reads all inputs, computes group by group (a group shares its statistics), and then writes all outputs. Each step is
//! a field of the [`Recipe`].

use std::collections::BTreeMap;
use std::slice;

use isonorm_kernels::abi::{Call, Dtype, Refusal, Tensor};

use crate::geometry::{Entry, Geometry};
use crate::memory;
use crate::number::Number;
use crate::recipe::Recipe;

/// Named tensors as dense row-major numbers.
#[derive(Clone, Debug, Default)]
pub struct Tensors(BTreeMap<String, Vec<f64>>);

impl Tensors {
    /// The tensor of this name, if it is there.
    pub fn get(&self, name: &str) -> Option<&Vec<f64>> {
        self.0.get(name)
    }

    /// The tensor of this name, or no elements.
    pub fn of(&self, name: &str) -> &[f64] {
        self.get(name).map_or(&[], Vec::as_slice)
    }

    /// Puts a tensor.
    pub fn set(&mut self, name: &str, values: Vec<f64>) {
        self.0.insert(name.to_owned(), values);
    }

    /// The elements of the tensor of this name, to be changed; none if it is absent.
    pub fn each(&mut self, name: &str) -> slice::IterMut<'_, f64> {
        self.0.get_mut(name).map_or(Default::default(), |values| values.iter_mut())
    }

    /// All tensors.
    pub fn all(&mut self) -> impl Iterator<Item = (&String, &mut Vec<f64>)> {
        self.0.iter_mut()
    }
}

/// What the statistics of an operator are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Statistic {
    /// Mean and variance.
    Moments,
    /// 0 and the mean square.
    MeanSquare,
    /// 0 and the mean square of the first entries.
    Head,
    /// Sum, and the mean square with the entry that is not stored.
    Complement,
    /// 0 and the sum of squares.
    Norm,
    /// The running statistics.
    Running,
}

/// A call's attributes and types.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Its statistics.
    pub statistic: Statistic,
    /// Type of the data.
    pub data: Dtype,
    /// Type of weights and biases.
    pub param: Dtype,
    /// Type of the arithmetic.
    pub working: Dtype,
    /// ε as it is used.
    pub eps: Number,
    /// The weight of the new in running statistics.
    pub factor: f64,
    /// The batches before this one, if that decides `factor`.
    pub batches: Option<i64>,
    /// The attribute `cast`.
    pub cast: String,
    /// Whether the norm reads the rounded sum.
    pub rounded_sum: bool,
    /// The attributes `p` and `k`.
    pub head: (f64, usize),
    /// Threads that may be used.
    pub threads: usize,
    /// Sizes.
    pub geometry: Geometry,
}

impl Setting {
    fn of(recipe: &Recipe, call: &Call<'_>) -> Result<Self, Refusal> {
        let x = call.required_input("x")?;
        let statistic = match call.operator() {
            "rms_norm" | "add_rms_norm" => Statistic::MeanSquare,
            "partial_rms_norm" => Statistic::Head,
            "crms_norm" => Statistic::Complement,
            "l2_normalize" => Statistic::Norm,
            "batch_norm_inference" => Statistic::Running,
            "layer_norm" | "add_layer_norm" | "batch_norm" | "group_norm" | "instance_norm" => Statistic::Moments,
            other => return Err(Refusal::Unsupported(format!("operator `{other}`"))),
        };
        let working = (recipe.working)(x.dtype);
        let batches = call.integer("num_batches_tracked").ok();
        let momentum = call.real("momentum").unwrap_or(0.0);
        let given_eps = call.real("eps")?;
        let param = ["weight", "bias"].into_iter().find_map(|name| call.input(name));
        let mut setting = Setting {
            statistic,
            data: x.dtype,
            param: param.map_or(x.dtype, |param| param.dtype),
            working,
            eps: Number::new(given_eps, working),
            factor: batches.map_or(momentum, |batches| 1.0 / (batches as f64 + 1.0)),
            batches,
            cast: call.text("cast").unwrap_or("none").to_owned(),
            rounded_sum: call.text("sum") != Ok("unrounded"),
            head: (call.real("p").unwrap_or(1.0), call.integer("k").unwrap_or(0) as usize),
            threads: call.threads(),
            geometry: Geometry::of(call, &x)?,
        };
        setting.eps = Number::new((recipe.eps)(given_eps, &setting), working);
        Ok(setting)
    }

    /// A number in the precision of the arithmetic.
    pub fn number(&self, value: f64) -> Number {
        Number::new(value, self.working)
    }
}

/// Mean and variance, or what stands for them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Statistics {
    /// Subtracted from x; for [`Statistic::Complement`] Σx.
    pub centre: Number,
    /// What the scale is made of.
    pub spread: Number,
}

/// A call while it is computed.
pub struct Task<'a> {
    recipe: &'a Recipe,
    /// Attributes and types.
    pub setting: &'a Setting,
    /// What the call gave.
    pub inputs: &'a Tensors,
    /// What is normalized: x, or the sum as the norm reads it.
    x: &'a [f64],
    groups: &'a [Vec<Entry>],
}

/// A group while it is computed.
pub struct Row<'a> {
    /// The call.
    pub task: &'a Task<'a>,
    /// Which group it is.
    pub index: usize,
    /// Its elements.
    pub x: Vec<Number>,
}

impl Row<'_> {
    /// Attributes and types.
    pub fn setting(&self) -> &Setting {
        self.task.setting
    }

    /// The group's elements' places.
    pub fn entries(&self) -> &[Entry] {
        &self.task.groups[self.index]
    }

    /// The number of groups.
    pub fn groups(&self) -> usize {
        self.task.groups.len()
    }

    /// The same group with other elements.
    pub fn with(&self, x: Vec<Number>) -> Row<'_> {
        Row { x, task: self.task, index: self.index }
    }

    /// Another group of the call, this one if there is none.
    pub fn other(&self, index: usize) -> Row<'_> {
        if index < self.task.groups.len() { self.task.row(index) } else { self.with(self.x.clone()) }
    }

    /// The sum, as the kernel sums.
    pub fn sum(&self, term: impl Fn(Number) -> Number) -> Number {
        let terms: Vec<Number> = self.x.iter().map(|&x| term(x)).collect();
        if terms.is_empty() { self.setting().number(0.0) } else { (self.task.recipe.sum)(&terms) }
    }

    /// The mean.
    pub fn mean(&self, term: impl Fn(Number) -> Number) -> Number {
        (self.task.recipe.quotient)(self.sum(term), self.x.len())
    }
}

/// An element of y while it is computed.
pub struct Point<'a> {
    /// What is normalized.
    pub x: Number,
    /// Of its group.
    pub statistics: Statistics,
    /// Of its group.
    pub scale: Number,
    /// Its weight.
    pub weight: Option<Number>,
    /// Its bias.
    pub bias: Option<Number>,
    /// Its place in its group.
    pub index: usize,
    /// The call's attributes and types.
    pub setting: &'a Setting,
    recipe: &'a Recipe,
}

/// An element of dx while it is computed.
pub struct Slope<'a> {
    /// The group.
    pub row: &'a Row<'a>,
    /// The element's place in it.
    pub index: usize,
    /// What is normalized.
    pub x: Number,
    /// The gradient of y.
    pub dy: Number,
    /// The normalized x.
    pub normalized: Number,
    /// Its gradient.
    pub upstream: Number,
    /// Of the group.
    pub statistics: Statistics,
    /// Of the group.
    pub scale: Number,
    /// Σ upstream
    pub sum: Number,
    /// Σ upstream · normalized
    pub sum_product: Number,
    /// Σ upstream · x
    pub sum_with_x: Number,
}

impl Slope<'_> {
    /// The number of elements in the group.
    pub fn count(&self) -> f64 {
        self.row.x.len() as f64
    }

    /// The call's attributes and types.
    pub fn setting(&self) -> &Setting {
        self.row.setting()
    }
}

/// Where the elements of a tensor lie.
pub fn offsets(tensor: &Tensor<'_>) -> Vec<isize> {
    memory::walk(tensor.shape, tensor.strides)
}

/// The plain loop.
pub fn sum(terms: &[Number]) -> Number {
    terms.iter().copied().reduce(|sum, term| sum + term).expect("a sum has terms")
}

/// x + residual: what is stored, and what the norm reads.
pub fn residual(x: Number, residual: Number, setting: &Setting) -> (Number, Number) {
    let h = x + residual;
    (h, if setting.rounded_sum { h.through(setting.data) } else { h })
}

/// In two passes.
pub fn statistics(row: &Row<'_>) -> Statistics {
    let setting = row.setting();
    let zero = setting.number(0.0);
    let square = |x: Number| x * x;
    match setting.statistic {
        Statistic::Moments => {
            let centre = row.mean(|x| x);
            Statistics { centre, spread: row.mean(|x| square(x - centre)) }
        }
        Statistic::MeanSquare => Statistics { centre: zero, spread: row.mean(square) },
        Statistic::Head => {
            let head = row.with(row.x[..setting.head.1.min(row.x.len())].to_vec());
            Statistics { centre: zero, spread: head.mean(square) }
        }
        Statistic::Complement => {
            let centre = row.sum(|x| x);
            Statistics { centre, spread: (row.sum(square) + square(centre)) / (row.x.len() as f64 + 1.0) }
        }
        Statistic::Norm => Statistics { centre: zero, spread: row.sum(square) },
        Statistic::Running => {
            let channel = row.entries().first().map_or(0, |entry| entry.param);
            let [centre, spread] =
                ["running_mean", "running_var"].map(|name| setting.number(row.task.inputs.of(name)[channel]));
            Statistics { centre, spread }
        }
    }
}

/// 1/√(spread + ε); for l2_normalize the norm, which is divided by.
pub fn scale(spread: Number, setting: &Setting) -> Number {
    match setting.statistic {
        Statistic::Norm => spread.sqrt().max(setting.eps),
        _ => (spread + setting.eps).sqrt().recip(),
    }
}

/// The normalized x.
pub fn normalize(x: Number, statistics: Statistics, scale: Number, setting: &Setting) -> Number {
    match setting.statistic {
        Statistic::Norm => x / scale,
        Statistic::Moments | Statistic::Running => (x - statistics.centre) * scale,
        _ => x * scale,
    }
}

/// Weight and bias applied.
pub fn affine(normalized: Number, weight: Option<Number>, bias: Option<Number>, setting: &Setting) -> Number {
    let scaled = match (weight, &setting.cast[..]) {
        (None, _) => normalized,
        (Some(weight), "llama") => normalized.through(setting.data) * weight,
        (Some(weight), "gemma") => normalized * (weight + 1.0),
        (Some(weight), _) => normalized * weight,
    };
    bias.map_or(scaled, |bias| scaled + bias)
}

/// An element of y.
pub fn output(point: &Point<'_>) -> Number {
    let Point { x, statistics, scale, weight, bias, setting, recipe, .. } = *point;
    (recipe.affine)((recipe.normalize)(x, statistics, scale, setting), weight, bias, setting)
}

/// The gradient of the normalized x.
pub fn upstream(dy: Number, weight: Option<Number>, setting: &Setting) -> Number {
    match weight {
        None => dy,
        Some(weight) if setting.cast == "gemma" => dy * (weight + 1.0),
        Some(weight) => dy * weight,
    }
}

/// The gradient of what is normalized.
pub fn gradient(slope: &Slope<'_>) -> Number {
    let &Slope { upstream, normalized, scale, sum, sum_product, .. } = slope;
    let (setting, count) = (slope.setting(), slope.count());
    match setting.statistic {
        Statistic::Moments => (upstream - sum / count - normalized * (sum_product / count)) * scale,
        Statistic::MeanSquare => (upstream - normalized * (sum_product / count)) * scale,
        Statistic::Head if slope.index < setting.head.1 => {
            (upstream - normalized * (sum_product / setting.head.1 as f64)) * scale
        }
        Statistic::Complement => {
            let rest = slope.statistics.centre * scale;
            (upstream - (normalized + rest) * (sum_product / (count + 1.0))) * scale
        }
        Statistic::Norm if clamped(slope) => upstream / scale,
        Statistic::Norm => (upstream - normalized * sum_product) / scale,
        Statistic::Head | Statistic::Running => upstream * scale,
    }
}

/// Whether the norm has no gradient: it is less than ε, or 0.
pub fn clamped(slope: &Slope<'_>) -> bool {
    let norm = slope.statistics.spread.sqrt().value();
    norm < slope.setting().eps.value() || norm == 0.0
}

/// What an element adds to the gradients of weight and bias.
pub fn terms(slope: &Slope<'_>) -> (Number, Number) {
    let &Slope { dy, normalized, .. } = slope;
    let setting = slope.setting();
    let normalized = if setting.cast == "llama" { normalized.through(setting.data) } else { normalized };
    (dy * normalized, dy)
}

/// Computes a call by the recipe.
pub fn compute(recipe: &Recipe, call: &Call<'_>) -> Result<(), Refusal> {
    let mut setting = Setting::of(recipe, call)?;
    let mut inputs = Tensors::default();
    for name in
        ["x", "residual", "weight", "bias", "running_mean", "running_var", "dy", "dresidual_out"].map(str::to_owned)
    {
        if let Some(tensor) = call.input(&name) {
            inputs.set(&name, memory::read(&tensor, &(recipe.input_offsets)(&tensor)));
        }
    }
    (recipe.inputs)(&mut inputs, &mut setting);
    let number = |&value: &f64| setting.number(value);
    let mut outputs = Tensors::default();
    let mut x = inputs.of("x").to_vec();
    if let Some(residual) = inputs.get("residual") {
        let sums = x.iter().zip(residual).map(|(x, other)| (recipe.residual)(number(x), number(other), &setting));
        let (stored, read) = sums.map(|(stored, read)| (stored.value(), read.value())).unzip();
        outputs.set("residual_out", stored);
        x = read;
    }
    let groups = (recipe.groups)(&setting.geometry);
    let task = Task { recipe, setting: &setting, inputs: &inputs, x: &x, groups: &groups };
    match call.direction() {
        "forward" => task.forward(&mut outputs),
        _ => task.backward(&mut outputs),
    }
    (recipe.outputs)(&mut outputs, &inputs, &setting);
    for (name, values) in outputs.all() {
        if let Some(tensor) = call.output(name) {
            let offsets = (recipe.output_offsets)(&tensor);
            let store = |&value: &f64| (recipe.store)(value, tensor.dtype);
            let count = values.len();
            let written = (0..count).filter(|&element| (recipe.writes)(element, count));
            memory::write(&tensor, written.map(|element| (offsets[element], store(&values[element]))));
        }
    }
    Ok(())
}

impl<'a> Task<'a> {
    fn row(&'a self, index: usize) -> Row<'a> {
        let x = self.groups[index].iter().map(|entry| self.setting.number(self.x[entry.element])).collect();
        Row { task: self, index, x }
    }

    fn parameter(&self, name: &str, entry: &Entry) -> Option<Number> {
        Some(self.setting.number(self.inputs.get(name)?[entry.param]))
    }

    /// Applies `f` to every group, on several threads if the recipe says so.
    fn map<T: Send>(&'a self, f: impl Fn(Row<'a>) -> T + Sync) -> Vec<T> {
        let indices: Vec<usize> = (0..self.groups.len()).collect();
        if !self.recipe.parallel || self.setting.threads < 2 || indices.is_empty() {
            return indices.into_iter().map(|index| f(self.row(index))).collect();
        }
        std::thread::scope(|scope| {
            let f = &f;
            let shares = indices.chunks(indices.len().div_ceil(self.setting.threads));
            let handles: Vec<_> = shares
                .map(|share| scope.spawn(move || share.iter().map(|&index| f(self.row(index))).collect::<Vec<T>>()))
                .collect();
            handles.into_iter().flat_map(|handle| handle.join().expect("no thread panics")).collect()
        })
    }

    fn forward(&self, outputs: &mut Tensors) {
        let rows = self.map(|row| {
            let statistics = (self.recipe.statistics)(&row);
            let scale = (self.recipe.scale)(statistics.spread, self.setting);
            let point = |(index, (&x, entry)): (usize, (&Number, &Entry))| {
                let [weight, bias] = ["weight", "bias"].map(|name| self.parameter(name, entry));
                let (setting, recipe) = (self.setting, self.recipe);
                let point = Point { x, statistics, scale, weight, bias, index, setting, recipe };
                (entry.element, (recipe.output)(&point).value())
            };
            let points: Vec<(usize, f64)> = row.x.iter().zip(row.entries()).enumerate().map(point).collect();
            (statistics, points)
        });
        let mut y = vec![0.0; self.x.len()];
        rows.iter().flat_map(|(_, points)| points).for_each(|&(element, value)| y[element] = value);
        outputs.set("y", y);
        if self.setting.statistic == Statistic::Moments && self.inputs.get("running_mean").is_some() {
            let statistics: Vec<Statistics> = rows.into_iter().map(|(statistics, _)| statistics).collect();
            self.update(&statistics, outputs);
        }
    }

    /// The new running statistics, from those of the groups.
    fn update(&self, statistics: &[Statistics], outputs: &mut Tensors) {
        let (recipe, geometry) = (self.recipe, &self.setting.geometry);
        let channels = geometry.channels;
        let count = self.groups.first().map_or(0, Vec::len);
        let factor = self.setting.number(self.setting.factor);
        let fresh = |channel: usize, of: &dyn Fn(&Statistics) -> Number| {
            let instances: Vec<Number> = statistics.iter().skip(channel).step_by(channels.max(1)).map(of).collect();
            match instances[..] {
                [] => self.setting.number(0.0),
                [only] => only,
                _ => (recipe.quotient)((recipe.sum)(&instances), instances.len()),
            }
        };
        for (name, of) in [
            ("running_mean", (&|statistics: &Statistics| statistics.centre) as &dyn Fn(&Statistics) -> Number),
            ("running_var", &|statistics| (recipe.unbiased)(statistics.spread, count, self.setting)),
        ] {
            let old = self.inputs.of(name);
            let new = |channel: usize| {
                (recipe.running)(self.setting.number(old[channel]), fresh(channel, of), factor).value()
            };
            let empty = geometry.outer * geometry.inner == 0;
            let updated = if empty { old.to_vec() } else { (0..channels).map(new).collect() };
            outputs.set(&format!("new_{name}"), updated);
        }
    }

    fn backward(&self, outputs: &mut Tensors) {
        let (recipe, setting) = (self.recipe, self.setting);
        let dy = self.inputs.of("dy");
        let rows = self.map(|row| {
            let statistics = (recipe.statistics)(&row);
            let scale = (recipe.scale)(statistics.spread, setting);
            let dy: Vec<Number> = row.entries().iter().map(|entry| setting.number(dy[entry.element])).collect();
            let weighted =
                |(&dy, entry): (&Number, &Entry)| (recipe.upstream)(dy, self.parameter("weight", entry), setting);
            let upstream: Vec<Number> = dy.iter().zip(row.entries()).map(weighted).collect();
            let normalized: Vec<Number> =
                row.x.iter().map(|&x| (recipe.normalize)(x, statistics, scale, setting)).collect();
            let product = |factors: &[Number]| -> Vec<Number> {
                upstream.iter().zip(factors).map(|(&upstream, &factor)| upstream * factor).collect()
            };
            let [sum, sum_product, sum_with_x] =
                [upstream.clone(), product(&normalized), product(&row.x)].map(|terms| row.with(terms).sum(|term| term));
            let slope = |index: usize| Slope {
                row: &row,
                index,
                x: row.x[index],
                dy: dy[index],
                normalized: normalized[index],
                upstream: upstream[index],
                statistics,
                scale,
                sum,
                sum_product,
                sum_with_x,
            };
            let element = |slope: Slope<'_>| ((recipe.gradient)(&slope), (recipe.terms)(&slope));
            (0..row.x.len()).map(|index| element(slope(index))).collect::<Vec<_>>()
        });
        let mut dx = vec![0.0; self.x.len()];
        let mut terms: BTreeMap<usize, Vec<(Number, Number)>> = BTreeMap::new();
        for (entries, row) in self.groups.iter().zip(&rows) {
            for (entry, &(slope, of)) in entries.iter().zip(row) {
                dx[entry.element] = slope.value();
                terms.entry(entry.param).or_default().push(of);
            }
        }
        if let Some(branch) = self.inputs.get("dresidual_out") {
            let both =
                dx.iter().zip(branch).map(|(&dx, &branch)| (setting.number(dx) + setting.number(branch)).value());
            dx = both.collect();
            outputs.set("dresidual", dx.clone());
        }
        outputs.set("dx", dx);
        for (name, of) in [
            ("weight", (&|terms: &(Number, Number)| terms.0) as &dyn Fn(&(Number, Number)) -> Number),
            ("bias", &|terms| terms.1),
        ] {
            let Some(values) = self.inputs.get(name) else { continue };
            let total = |param: usize| match terms.get(&param) {
                Some(terms) => (recipe.sum_terms)(&terms.iter().map(of).collect::<Vec<_>>()).value(),
                None => 0.0,
            };
            outputs.set(&format!("d{name}"), (0..values.len()).map(total).collect());
        }
    }
}
