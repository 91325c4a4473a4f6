//! Figures about speed. Those over all operators come first; then, for each operator and dtype, its details.

mod directions;
mod means;
mod roofline;
mod rounds;
mod row_length;
pub(super) mod rows;
mod speedups;
mod threads;

use std::collections::BTreeSet;

use super::Figure;
use super::theme;
use crate::Error;
use crate::bench::{Benches, COPY, Cell, Limit};
use crate::record::{Number, Setting};

/// The measurements of one machine, with outputs allocated before.
struct View<'a> {
    cells: Vec<&'a Cell>,
    ceilings: Vec<&'a Limit>,
    /// What is added to titles where there are several machines.
    place: String,
}

/// All figures about speed that there is data for.
///
/// # Errors
/// [`Error::Plot`] if one cannot be drawn.
pub fn figures(benches: &Benches) -> Result<Vec<Figure>, Error> {
    let mut figures = Vec::new();
    for (index, machine) in benches.machines.iter().enumerate() {
        let several = benches.machines.len() > 1;
        let place = if several { format!(", machine {}: {}", index + 1, machine.processor()) } else { String::new() };
        let warm = |cell: &&Cell| cell.machine == index && cell.bench.setting == Setting::Warm;
        let view = View {
            cells: benches.cells.iter().filter(warm).collect(),
            ceilings: benches.ceilings.iter().filter(|limit| limit.machine == index).collect(),
            place,
        };
        figures.extend(view.overview()?);
        for (operator, dtype) in view.cells.iter().map(|c| (&c.bench.operator, &c.bench.dtype)).collect::<BTreeSet<_>>()
        {
            let details = view.details(operator, dtype)?.into_iter();
            figures.extend(details.map(|figure| Figure { operator: Some(operator.clone()), ..figure }));
        }
    }
    Ok(figures)
}

impl View<'_> {
    fn overview(&self) -> Result<Vec<Figure>, Error> {
        let mut figures = Vec::new();
        let dtypes: BTreeSet<_> = self.cells.iter().map(|cell| cell.bench.dtype.as_str()).collect();
        let threads = self.cells.iter().map(|cell| cell.bench.threads);
        let threads: BTreeSet<_> = threads.chain(self.ceilings.iter().map(|limit| limit.ceiling.threads)).collect();
        for dtype in &dtypes {
            figures.extend(means::figure(self, dtype)?);
        }
        for dtype in if dtypes.is_empty() { vec![None] } else { dtypes.into_iter().map(Some).collect() } {
            for threads in &threads {
                figures.extend(roofline::figure(self, dtype, *threads)?);
            }
        }
        Ok(figures)
    }

    fn details(&self, operator: &str, dtype: &str) -> Result<Vec<Figure>, Error> {
        let about = |cell: &&&Cell| cell.bench.operator == operator && cell.bench.dtype == dtype;
        let cells: Vec<_> = self.cells.iter().filter(about).copied().collect();
        let subject = Subject { operator, dtype, place: &self.place, cells };
        let figures = [
            speedups::figure(&subject)?,
            row_length::figure(&subject)?,
            threads::figure(&subject)?,
            directions::figure(&subject)?,
            rounds::figure(&subject)?,
        ];
        Ok(figures.into_iter().flatten().collect())
    }
}

/// The measurements of one operator and dtype.
struct Subject<'a> {
    operator: &'a str,
    dtype: &'a str,
    place: &'a str,
    cells: Vec<&'a Cell>,
}

impl Subject<'_> {
    /// Name of a figure about it.
    fn name(&self, figure: &str) -> String {
        format!("{figure}-{}-{}", self.operator, self.dtype)
    }

    /// Title of a figure about it.
    fn title(&self, what: &str) -> String {
        format!("{what}: {}, {}{}", self.operator, self.dtype, self.place)
    }

    /// The cells against what is not a copy.
    fn duels(&self) -> impl Iterator<Item = &Cell> {
        self.cells.iter().copied().filter(|cell| cell.bench.versus != COPY)
    }
}

/// One cell for each workload of each kernel; one against what is not a copy, if there is one.
fn workloads<'a>(cells: &[&'a Cell]) -> Vec<&'a Cell> {
    let key = |cell: &&'a Cell| {
        let b = &cell.bench;
        (&b.kernel, &b.dtype, &b.shape, &b.layout, b.threads)
    };
    let duels: BTreeSet<_> = cells.iter().filter(|cell| cell.bench.versus != COPY).map(key).collect();
    let mut seen = BTreeSet::new();
    let better = |cell: &&&'a Cell| cell.bench.versus != COPY || !duels.contains(&key(cell));
    cells.iter().filter(better).filter(|cell| seen.insert(key(cell))).copied().collect()
}

/// Names of the opponents that are no copies, for a legend.
fn opponents(cells: &[&Cell]) -> String {
    let names = cells.iter().map(|cell| cell.bench.versus.as_str()).filter(|name| *name != COPY);
    names.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
}

/// Speed of a cell's opponent, if it is not a copy, in bytes per second.
fn opponent_speed(cell: &Cell) -> Option<f64> {
    (cell.bench.versus != COPY).then(|| cell.bench.versus_bytes_per_second().0)
}

/// Ends of a logarithmic axis for the given values, with their powers of ten; none if there are none to draw.
pub(super) fn logarithmic(values: impl IntoIterator<Item = f64>, margin: f64) -> Option<(f64, f64)> {
    let powers = values.into_iter().map(f64::log10).filter(|power| power.is_finite());
    let (low, high) = powers.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), power| (l.min(power), h.max(power)));
    (low <= high).then_some((low - margin, high + margin))
}

/// Marks on an axis of powers of ten: 1, 2 and 5, or multiples of a round number where it spans little.
pub(super) fn marks((low, high): (f64, f64)) -> Vec<(f64, String)> {
    let coarse = theme::decades(low, high);
    if coarse.len() >= 3 {
        return coarse;
    }
    let (least, most) = (10f64.powf(low), 10f64.powf(high));
    let fifth = (most - least) / 5.0;
    let decade = 10f64.powf(fifth.log10().floor());
    let step = [1.0, 2.0, 5.0].into_iter().map(|n| n * decade).find(|step| *step >= fifth).unwrap_or(10.0 * decade);
    let multiples = (0..10).map(|i| ((least / step).ceil() + f64::from(i)) * step).take_while(|value| *value <= most);
    multiples.map(|value| (value.log10(), Number(value).to_string())).collect()
}

/// Marks on an axis of powers of two, each with the text that is made of the number.
fn powers_of_two((low, high): (f64, f64), text: impl Fn(u64) -> String) -> Vec<(f64, String)> {
    let (first, last) = (low.ceil().max(0.0) as u32, high.floor().clamp(0.0, 62.0) as u32);
    let step = (last.saturating_sub(first) / 6 + 1) as usize;
    (first..=last).step_by(step).map(|power| (f64::from(power), text(1 << power))).collect()
}

#[cfg(test)]
mod tests {
    use super::marks;

    #[test]
    fn marks_are_round_and_apart() {
        let texts = |least: f64, most: f64| {
            marks((least.log10(), most.log10())).into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(texts(0.85, 1.55), "1 1.2 1.4");
        assert_eq!(texts(0.6, 3.9), "1 2 3");
        assert_eq!(texts(2.1, 4.9), "3 4");
        // Margins keep axes from spanning less.
        assert_eq!(texts(0.895, 1.13), "0.9 0.95 1 1.05 1.1");
        assert_eq!(texts(0.5, 12.0), "0.5 1 2 5 10");
    }
}
