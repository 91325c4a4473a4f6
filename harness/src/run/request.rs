//! What a kernel is asked to do.

use isonorm_kernels::abi::{Argument, Direction, Dtype, Value};

/// One call to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The operator's name.
    pub operator: String,
    /// Which half of it.
    pub direction: Direction,
    /// The sizes of the operator's axes, by the names that its formula has for them.
    pub sizes: Vec<(String, usize)>,
    /// Its attributes.
    pub attributes: Vec<(String, Value)>,
    /// Its inputs; an absent optional one is not listed.
    pub inputs: Vec<TensorArg>,
    /// Its outputs; one that is not asked for is not listed.
    pub outputs: Vec<TensorArg>,
    /// How many threads the kernel may use, at least 1.
    pub threads: usize,
    /// Other contents of the inputs, in the same layout: the kernel is first called with these, at the very
    /// addresses of the call that counts, so that a result kept from an earlier call shows.
    pub prelude: Option<Vec<Vec<u8>>>,
}

/// A tensor of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorArg {
    /// Its name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Sizes.
    pub shape: Vec<usize>,
    /// Steps, in elements.
    pub strides: Vec<usize>,
    /// Elements of memory from the first to one past the last that the indices reach, or more.
    pub span: usize,
    /// An input's memory, `span` elements; empty for an output.
    pub data: Vec<u8>,
    /// For an output: the input whose memory it shares (in place).
    pub alias: Option<usize>,
}

impl TensorArg {
    /// Bytes of its memory.
    pub fn bytes(&self) -> usize {
        self.span * self.dtype.size()
    }

    /// Number of indices.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no index.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether row-major order is the order in memory and there is no gap.
    pub fn is_dense(&self) -> bool {
        let mut expected = 1;
        for (&size, &stride) in self.shape.iter().zip(&self.strides).rev() {
            if size != 1 && stride != expected {
                return self.span == 0;
            }
            expected *= size;
        }
        expected == self.span
    }

    /// Where each index lies in memory, in elements, in row-major order of the indices.
    pub fn offsets(&self) -> impl Iterator<Item = usize> + '_ {
        let mut index = vec![0; self.shape.len()];
        let mut offset = 0;
        (0..self.len()).map(move |_| {
            let here = offset;
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                offset += self.strides[axis];
                if index[axis] < self.shape[axis] {
                    break;
                }
                offset -= self.strides[axis] * self.shape[axis];
                index[axis] = 0;
            }
            here
        })
    }

    /// The tensor as an argument of a call, with its first element at `data`.
    pub(crate) fn argument(&self, data: *mut u8) -> Argument {
        let signed = |list: &[usize]| list.iter().map(|&number| number as i64).collect();
        Argument {
            name: self.name.clone(),
            data,
            dtype: self.dtype,
            shape: signed(&self.shape),
            strides: signed(&self.strides),
        }
    }

    fn reach(&self) -> Option<usize> {
        if self.shape.contains(&0) {
            return Some(0);
        }
        self.shape
            .iter()
            .zip(&self.strides)
            .try_fold(1usize, |reach, (&size, &stride)| reach.checked_add((size - 1).checked_mul(stride)?))
    }

    fn validate(&self) -> Result<(), String> {
        let name = &self.name;
        if self.shape.len() != self.strides.len() {
            return Err(format!("`{name}` has {} sizes and {} strides", self.shape.len(), self.strides.len()));
        }
        if name.contains('\0') {
            return Err(format!("the name {name:?} contains a NUL byte"));
        }
        if self.reach().is_none_or(|reach| reach > self.span) {
            return Err(format!("the indices of `{name}` reach beyond its span of {} elements", self.span));
        }
        Ok(())
    }
}

impl Request {
    /// Whether the lists fit each other, so that a kernel may be trusted with it.
    ///
    /// # Errors
    /// What does not fit.
    pub(super) fn validate(&self) -> Result<(), String> {
        let fits = |data: &[u8], input: &TensorArg| {
            if data.len() == input.bytes() {
                return Ok(());
            }
            Err(format!("input `{}` spans {} bytes but {} are given", input.name, input.bytes(), data.len()))
        };
        let mut texts = self.attributes.iter().flat_map(|(name, value)| match value {
            Value::Text(text) => vec![name, text],
            _ => vec![name],
        });
        if self.operator.contains('\0') || texts.any(|text| text.contains('\0')) {
            return Err("a name contains a NUL byte".to_owned());
        }
        if self.threads == 0 || i32::try_from(self.threads).is_err() {
            return Err(format!("{} threads: use 1 or more", self.threads));
        }
        for input in &self.inputs {
            input.validate()?;
            fits(&input.data, input)?;
        }
        if let Some(prelude) = &self.prelude {
            if prelude.len() != self.inputs.len() {
                return Err(format!("{} inputs and {} preludes", self.inputs.len(), prelude.len()));
            }
            self.inputs.iter().zip(prelude).try_for_each(|(input, data)| fits(data, input))?;
        }
        for (position, output) in self.outputs.iter().enumerate() {
            output.validate()?;
            let Some(alias) = output.alias else { continue };
            let same = |input: &TensorArg| (input.dtype, input.span) == (output.dtype, output.span);
            if !self.inputs.get(alias).is_some_and(same) {
                return Err(format!("output `{}` cannot share the memory of input {alias}", output.name));
            }
            if self.outputs[..position].iter().any(|other| other.alias == Some(alias)) {
                return Err(format!("two outputs share the memory of input {alias}"));
            }
        }
        Ok(())
    }

    /// The inputs' memory in the call that counts.
    pub(super) fn contents(&self) -> Vec<&[u8]> {
        self.inputs.iter().map(|input| &input.data[..]).collect()
    }

    /// Whether an output shares the memory of this input.
    pub(super) fn is_overwritten(&self, input: usize) -> bool {
        self.outputs.iter().any(|output| output.alias == Some(input))
    }
}
