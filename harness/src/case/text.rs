//! The one-line form of a case.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::str::FromStr;

use isonorm_kernels::abi::{Direction, Dtype, DtypeSet};
use isonorm_oracles::Problem;
use isonorm_oracles::operators::{self, Operator};

use super::{Case, InvalidCase};
use crate::generate::families::{FAMILIES, Family};
use crate::generate::layouts::Layout;

impl Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { operator, direction, dtypes, dims, attributes, given } = &self.problem;
        write!(f, "{}:{direction} dtype={dtypes}", operator.name)?;
        for axis in operator.axes {
            let sizes = dims.get(axis.name).map_or(&[][..], Vec::as_slice);
            let text = if sizes.is_empty() { "-".to_owned() } else { join(sizes, "x") };
            write!(f, " {}={text}", axis.name)?;
        }
        for attribute in operator.attributes {
            if let Some(value) = attributes.get(attribute.name) {
                write!(f, " {}={value}", attribute.name)?;
            }
        }
        if !given.is_empty() {
            // In the operator's order.
            let names = operator.inputs.iter().map(|input| input.name).filter(|name| given.contains(name));
            write!(f, " with={}", join(names, ","))?;
        }
        write!(f, " family={}", self.family.name)?;
        let pairs = |f: &mut fmt::Formatter<'_>, key: &str, list: Vec<String>| {
            if list.is_empty() { Ok(()) } else { write!(f, " {key}={}", list.join(",")) }
        };
        pairs(f, "layout", self.layouts.iter().map(|(name, layout)| format!("{name}:{layout}")).collect())?;
        pairs(f, "in_place", self.in_place.iter().map(|(output, input)| format!("{output}:{input}")).collect())?;
        if self.threads != 1 {
            write!(f, " threads={}", self.threads)?;
        }
        if self.refreshed {
            f.write_str(" refreshed")?;
        }
        write!(f, " seed={}", self.seed)
    }
}

fn join(items: impl IntoIterator<Item = impl Display>, separator: &str) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(separator)
}

/// A line that is not a case: what is wrong with it and what is possible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseCaseError(String);

impl From<InvalidCase> for ParseCaseError {
    fn from(InvalidCase(message): InvalidCase) -> Self {
        ParseCaseError(message)
    }
}

/// Reads the form that [`Display`] writes. Left out: dtype f32, each attribute its default, family normal, no layout,
/// nothing in place, one thread, not refreshed, seed 0.
impl FromStr for Case {
    type Err = ParseCaseError;

    fn from_str(text: &str) -> Result<Self, ParseCaseError> {
        let mut words = text.split_whitespace();
        let head = words.next().ok_or_else(|| {
            ParseCaseError("a case starts with an operator and a direction, as in `rms_norm:forward`".to_owned())
        })?;
        let (operator, direction) = head.split_once(':').unwrap_or((head, "forward"));
        let operator = find_operator(operator)?;
        let direction = direction.parse::<Direction>().map_err(|error| ParseCaseError(error.to_string()))?;
        let mut case = Case::plain(
            Problem {
                operator,
                direction,
                dtypes: DtypeSet::uniform(Dtype::F32),
                dims: BTreeMap::new(),
                attributes: operator.default_attributes(),
                given: BTreeSet::new(),
            },
            0,
        );
        let mut seen = BTreeSet::new();
        for word in words {
            let (key, value) = match word.split_once('=') {
                Some(pair) => pair,
                None if word == "refreshed" => (word, ""),
                None => return Err(ParseCaseError(format!("`{word}` is neither `refreshed` nor key=value"))),
            };
            if !seen.insert(key) {
                return Err(ParseCaseError(format!("`{key}` is given twice")));
            }
            set(&mut case, key, value).map_err(|message| ParseCaseError(format!("in `{word}`: {message}")))?;
        }
        case.layouts.retain(|_, layout| *layout != Layout::Contiguous);
        case.validate()?;
        Ok(case)
    }
}

fn find_operator(name: &str) -> Result<&'static Operator, ParseCaseError> {
    operators::find(name).ok_or_else(|| {
        let names = operators::OPERATORS.map(|operator| operator.name);
        ParseCaseError(format!("there is no operator `{name}`; {}", suggest(name, &names)))
    })
}

/// The nearest of some names, or all of them if none is near.
fn suggest(text: &str, names: &[&str]) -> String {
    let nearest = names.iter().max_by(|a, b| strsim::jaro(text, a).total_cmp(&strsim::jaro(text, b)));
    match nearest {
        Some(nearest) if strsim::jaro(text, nearest) > 0.8 => format!("did you mean `{nearest}`?"),
        _ => format!("it can be {}", names.join(", ")),
    }
}

fn set(case: &mut Case, key: &str, value: &str) -> Result<(), String> {
    let operator = case.problem.operator;
    if let Some(axis) = operator.axes.iter().find(|axis| axis.name == key) {
        case.problem.dims.insert(axis.name, sizes(value)?);
        return Ok(());
    }
    if let Some(attribute) = operator.attributes.iter().find(|attribute| attribute.name == key) {
        case.problem.attributes.insert(attribute.name, attribute.domain.parse(value)?);
        return Ok(());
    }
    match key {
        "dtype" => case.problem.dtypes = value.parse::<DtypeSet>().map_err(|error| error.to_string())?,
        "with" => {
            for name in value.split(',') {
                let optional: Vec<&str> =
                    operator.inputs.iter().filter(|input| input.optional).map(|input| input.name).collect();
                let known = optional.iter().find(|known| **known == name);
                let known = known.ok_or_else(|| match optional.len() {
                    0 => format!("{} has no optional inputs", operator.name),
                    _ => format!("there is no optional input `{name}`; {}", suggest(name, &optional)),
                })?;
                case.problem.given.insert(*known);
            }
        }
        "family" => {
            let names = FAMILIES.map(|family| family.name);
            let unknown = || format!("there is no value family `{value}`; {}", suggest(value, &names));
            case.family = Family::find(value).ok_or_else(unknown)?;
        }
        "layout" => {
            for (tensor, layout) in pairs(value, "x:row_gap")? {
                insert(&mut case.layouts, tensor, layout.parse()?)?;
            }
        }
        "in_place" => {
            for (output, input) in pairs(value, "y:x")? {
                insert(&mut case.in_place, output, input.to_owned())?;
            }
        }
        "threads" => case.threads = whole(value)?,
        "seed" => case.seed = whole(value)?,
        "refreshed" => {
            if !value.is_empty() {
                return Err("`refreshed` has no value".to_owned());
            }
            case.refreshed = true;
        }
        _ => {
            let axes = operator.axes.iter().map(|axis| axis.name);
            let attributes = operator.attributes.iter().map(|attribute| attribute.name);
            let fixed = ["dtype", "with", "family", "layout", "in_place", "threads", "refreshed", "seed"];
            let known: Vec<&str> = axes.chain(attributes).chain(fixed).collect();
            return Err(format!("there is no key `{key}`; {}", suggest(key, &known)));
        }
    }
    Ok(())
}

fn insert<T>(map: &mut BTreeMap<String, T>, name: &str, value: T) -> Result<(), String> {
    match map.insert(name.to_owned(), value) {
        Some(_) => Err(format!("`{name}` is given twice")),
        None => Ok(()),
    }
}

fn pairs<'a>(value: &'a str, example: &str) -> Result<Vec<(&'a str, &'a str)>, String> {
    let pair = |part: &'a str| part.split_once(':').ok_or_else(|| format!("`{part}` is no pair such as {example}"));
    value.split(',').map(pair).collect()
}

fn sizes(value: &str) -> Result<Vec<usize>, String> {
    if value == "-" {
        return Ok(Vec::new());
    }
    let size = |part: &str| {
        let message = format!("`{part}` is not a size; write sizes as 2x3, and `-` for no dimension");
        part.parse().map_err(|_| message)
    };
    value.split('x').map(size).collect()
}

fn whole<T: FromStr>(value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("`{value}` is not a whole number from 0 to {}", u64::MAX))
}
