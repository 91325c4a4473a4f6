//! The part of the page about speed.

use serde::Serialize;

use super::Drawing;
use crate::Error;
use crate::bench::{Benches, COPY, Standing, geometric_mean, repeated, tables};
use crate::plot::bench_figures;
use crate::record::Machine;
use crate::table::{Mark, Table};

/// What the template `benches.html` is filled with.
#[derive(Serialize)]
pub(super) struct Speed {
    headline: String,
    slower: bool,
    tiles: Vec<(String, String, Mark)>,
    machines: Vec<String>,
    note: Option<String>,
    tables: Vec<Table>,
    figures: Vec<Drawing>,
    /// Each operator with the figures about it.
    operators: Vec<(String, Vec<Drawing>)>,
}

impl Speed {
    /// Of all measurements; none if there are none.
    pub(super) fn of(benches: &Benches) -> Result<Option<Speed>, Error> {
        if benches.is_empty() {
            return Ok(None);
        }
        let mut figures = Vec::new();
        let mut operators = Vec::<(String, Vec<Drawing>)>::new();
        for figure in bench_figures(benches)? {
            let operator = figure.operator.clone();
            let drawing = Drawing::from(figure);
            match (operator, operators.last_mut()) {
                (None, _) => figures.push(drawing),
                (Some(operator), Some((last, drawings))) if *last == operator => drawings.push(drawing),
                (Some(operator), _) => operators.push((operator, vec![drawing])),
            }
        }
        Ok(Some(Speed {
            headline: benches.headline(),
            slower: benches.any_slower(),
            tiles: tiles(benches),
            machines: benches.machines.iter().map(Machine::text).collect(),
            note: repeated(benches),
            tables: tables(benches),
            figures,
            operators,
        }))
    }
}

/// What there is to say in a figure each.
fn tiles(benches: &Benches) -> Vec<(String, String, Mark)> {
    let mut tiles = Vec::new();
    let mut tile = |label: String, value: String, mark: Mark| tiles.push((label, value, mark));
    let alarm = |n: usize, mark: Mark| if n > 0 { mark } else { Mark::Plain };
    for opponent in benches.opponents() {
        let Some(mean) = geometric_mean(benches.against(opponent)) else { continue };
        if opponent == COPY {
            tile("Geometric mean against a copy".to_owned(), format!("{mean}×"), Mark::Plain);
            continue;
        }
        let standings: Vec<_> = benches.against(opponent).map(|cell| Standing::of(&cell.bench)).collect();
        let count = |which: Standing| standings.iter().filter(|standing| **standing == which).count();
        let (faster, slower) = (count(Standing::Faster), count(Standing::Slower));
        let mean_mark = alarm(usize::from(mean.0 < 1.0), Mark::Bad);
        tile(format!("Geometric mean against {opponent}"), format!("{mean}×"), mean_mark);
        tile(format!("Faster than {opponent}"), format!("{faster} of {}", standings.len()), Mark::Plain);
        tile(format!("Slower than {opponent}"), slower.to_string(), alarm(slower, Mark::Bad));
        let open = standings.len() - faster - slower;
        tile(format!("Undecided against {opponent}"), open.to_string(), alarm(open, Mark::Unsure));
    }
    let doubtful = benches.cells.iter().filter(|cell| cell.bench.doubt.is_some()).count();
    if !benches.cells.is_empty() {
        tile("Measurements in doubt".to_owned(), doubtful.to_string(), alarm(doubtful, Mark::Unsure));
    }
    tiles
}
