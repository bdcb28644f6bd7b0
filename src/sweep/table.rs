//! What a sweep leaves behind: points.csv, pareto.csv, sweep.json and the scatter plot, from outcomes alone.
//!
//! Nothing here knows the host, so the bytes are the same for any number of threads and after any number of resumes.

use reports::WriteError;
use reports::plots::scatter::{Mark, Scatter, ScatterAxis, ScatterPoint};
use reports::summary::quantity;
use reports::tables::{number, quoted};
use serde_json::{Map, Value, json};

use super::goals::{Sense, front};
use super::plan::Plan;
use super::runner::{Figures, Outcome};

/// Value of the `schema` key of `sweep.json`.
pub const SCHEMA: &str = "presil.sweep/1";

/// Every point with its outcome and its standing.
pub struct Table<'a> {
    plan: &'a Plan<'a>,
    outcomes: &'a [Outcome],
    /// Points that keep all constraints and that no other such point beats, in ascending order.
    pub front: Vec<usize>,
}

impl<'a> Table<'a> {
    /// Finds the front; one outcome per design of the plan.
    #[must_use]
    pub fn new(plan: &'a Plan<'a>, outcomes: &'a [Outcome]) -> Self {
        let mut table = Self { plan, outcomes, front: Vec::new() };
        let goals = &plan.space.goals;
        let scores: Vec<(usize, Vec<f64>)> = (0..plan.points.len())
            .filter(|point| table.feasible(*point) == Some(true))
            .filter_map(|point| Some((point, goals.score(&table.outcome(point).ok()?.values)?)))
            .collect();
        table.front = front(&scores);
        table
    }

    /// The figures of a point, or why there are none.
    ///
    /// # Errors
    /// The message of a failed point.
    pub fn outcome(&self, point: usize) -> Result<&'a Figures, &'a str> {
        match &self.plan.points[point] {
            Ok(design) => self.outcomes[*design].as_ref().map_err(String::as_str),
            Err(why) => Err(why),
        }
    }

    /// Whether a point keeps all constraints; none for a failed one.
    #[must_use]
    pub fn feasible(&self, point: usize) -> Option<bool> {
        let figures = self.outcome(point).ok()?;
        Some(self.plan.space.goals.broken(&figures.values).is_empty())
    }

    /// Failed points with their messages.
    pub fn failed(&self) -> impl Iterator<Item = (usize, &'a str)> {
        (0..self.plan.points.len()).filter_map(|point| Some((point, self.outcome(point).err()?)))
    }

    /// Metrics that objectives or constraints name and that no point has: nothing can be said about them.
    #[must_use]
    pub fn unknown(&self) -> Vec<&'a str> {
        let goals = &self.plan.space.goals;
        let named =
            goals.objectives.iter().map(|o| o.metric).chain(goals.constraints.iter().map(|c| c.metric));
        let mut any = self.outcomes.iter().flatten().peekable();
        if any.peek().is_none() {
            return Vec::new();
        }
        let missing = |metric: &usize| self.outcomes.iter().flatten().all(|f| f.values[*metric].is_none());
        named.filter(missing).map(|metric| goals.metrics[metric].path.as_str()).collect()
    }

    fn on_front(&self, point: usize) -> bool {
        self.front.binary_search(&point).is_ok()
    }

    /// `points.csv`.
    #[must_use]
    pub fn points_csv(&self) -> String {
        self.csv(0..self.plan.points.len())
    }

    /// `pareto.csv`: the same columns, the front alone.
    #[must_use]
    pub fn pareto_csv(&self) -> String {
        self.csv(self.front.iter().copied())
    }

    fn csv(&self, points: impl Iterator<Item = usize>) -> String {
        let space = self.plan.space;
        let mut header = vec!["index"];
        header.extend(space.axes.iter().map(|axis| axis.key.as_str()));
        header.extend(["status", "error", "feasible", "pareto"]);
        header.extend(space.goals.metrics.iter().map(|m| m.path.as_str()));
        let mut text = line(header.into_iter().map(str::to_owned));
        for point in points {
            let mut cells = vec![point.to_string()];
            cells.extend(space.overrides(point).map(|(_, value)| value.to_string()));
            let feasible = self.feasible(point).map(|f| f.to_string()).unwrap_or_default();
            match self.outcome(point) {
                Ok(figures) => {
                    cells.extend([
                        "ok".to_owned(),
                        String::new(),
                        feasible,
                        self.on_front(point).to_string(),
                    ]);
                    cells.extend(figures.values.iter().map(|v| v.map(number).unwrap_or_default()));
                }
                Err(why) => {
                    cells.extend(["failed".to_owned(), why.to_owned(), feasible, false.to_string()]);
                    cells.extend(space.goals.metrics.iter().map(|_| String::new()));
                }
            }
            text.push_str(&line(cells.into_iter()));
        }
        text
    }

    /// `sweep.json`.
    #[must_use]
    pub fn document(&self) -> Value {
        let space = self.plan.space;
        let goals = &space.goals;
        let path = |metric: usize| goals.metrics[metric].path.as_str();
        let wanted = |sense: Sense| -> Vec<&str> {
            goals.objectives.iter().filter(|o| o.sense == sense).map(|o| path(o.metric)).collect()
        };
        let base: Map<String, Value> = space.base.iter().map(|s| (s.key.clone(), json!(s.value))).collect();
        let grid: Map<String, Value> = space.axes.iter().map(|a| (a.key.clone(), json!(a.values))).collect();
        json!({
            "schema": SCHEMA,
            "version": env!("CARGO_PKG_VERSION"),
            "space": {
                "base": base,
                "grid": grid,
                "objectives": {
                    "minimise": wanted(Sense::Minimise),
                    "maximise": wanted(Sense::Maximise),
                    "constraints": goals.constraints.iter().map(|c| c.text.as_str()).collect::<Vec<_>>(),
                },
            },
            "points": (0..self.plan.points.len()).map(|point| self.point(point)).collect::<Vec<_>>(),
            "pareto": self.front,
        })
    }

    fn point(&self, point: usize) -> Value {
        let goals = &self.plan.space.goals;
        let overrides: Map<String, Value> =
            self.plan.space.overrides(point).map(|(key, value)| (key.to_owned(), json!(value))).collect();
        let mut entry = Map::new();
        entry.insert("index".to_owned(), json!(point));
        entry.insert("overrides".to_owned(), Value::Object(overrides));
        if let Ok(design) = &self.plan.points[point] {
            entry.insert("key".to_owned(), json!(self.plan.designs[*design].key));
        }
        match self.outcome(point) {
            Ok(figures) => {
                let broken: Vec<&str> =
                    goals.broken(&figures.values).iter().map(|c| c.text.as_str()).collect();
                let metrics: Map<String, Value> = goals
                    .metrics
                    .iter()
                    .zip(&figures.values)
                    .filter_map(|(metric, value)| Some((metric.path.clone(), json!((*value)?))))
                    .collect();
                entry.insert("status".to_owned(), json!("ok"));
                entry.insert("feasible".to_owned(), json!(broken.is_empty()));
                entry.insert("broken".to_owned(), json!(broken));
                entry.insert("pareto".to_owned(), json!(self.on_front(point)));
                entry.insert("digest".to_owned(), json!(figures.digest));
                entry.insert("metrics".to_owned(), Value::Object(metrics));
            }
            Err(why) => {
                entry.insert("status".to_owned(), json!("failed"));
                entry.insert("error".to_owned(), json!(why));
            }
        }
        Value::Object(entry)
    }

    /// The first two objectives against each other; a single one against the number of the point.
    ///
    /// # Errors
    /// When the plot cannot be drawn.
    pub fn scatter(&self) -> Result<String, WriteError> {
        let space = self.plan.space;
        let goals = &space.goals;
        let axis = |index: usize| goals.objectives.get(index).map(|o| (o, &goals.metrics[o.metric]));
        let labelled = |index: usize| match axis(index) {
            Some((objective, metric)) => ScatterAxis {
                label: metric.label(),
                unit: metric.unit(),
                better: match objective.sense {
                    Sense::Minimise => "lower is better",
                    Sense::Maximise => "higher is better",
                },
            },
            None => ScatterAxis { label: "point".to_owned(), unit: "", better: "" },
        };
        let (x, y) = if goals.objectives.len() > 1 { (0, 1) } else { (usize::MAX, 0) };
        let value = |index: usize, point: usize, figures: &Figures| match axis(index) {
            Some((objective, _)) => figures.values[objective.metric],
            None => Some(point as f64),
        };
        let points = (0..self.plan.points.len()).filter_map(|point| {
            let figures = self.outcome(point).ok()?;
            let mark = match (self.on_front(point), self.feasible(point)) {
                (true, _) => Mark::Front,
                (false, Some(true)) => Mark::Feasible,
                (false, _) => Mark::Infeasible,
            };
            let (x, y) = (value(x, point, figures)?, value(y, point, figures)?);
            Some(ScatterPoint { number: point, x, y, mark, name: self.name(point) })
        });
        let failed = self.failed().count();
        let front = match self.front.len() {
            1 => "1 on the front".to_owned(),
            n => format!("{n} on the front"),
        };
        let objectives: Vec<&str> =
            goals.objectives.iter().map(|o| goals.metrics[o.metric].path.as_str()).collect();
        Scatter {
            title: format!("Sweep of {} points", self.plan.points.len()),
            subtitle: format!("{front} of {}; {failed} failed", objectives.join(", ")),
            x: labelled(x),
            y: labelled(y),
            joined: goals.objectives.len() == 2,
            points: points.collect(),
        }
        .draw()
    }

    /// What sets a point apart, in short: values, with the last word of their keys.
    fn name(&self, point: usize) -> String {
        let short = |(key, value): (&str, &super::options::Scalar)| {
            format!("{} {value}", key.rsplit('.').next().unwrap_or(key))
        };
        self.plan.space.overrides(point).map(short).collect::<Vec<_>>().join(", ")
    }

    /// The front for people, one line a point.
    #[must_use]
    pub fn text(&self) -> String {
        let goals = &self.plan.space.goals;
        let failed = self.failed().count();
        let points = self.plan.points.len();
        let mut text = format!(
            "{points} points: {} ok, {failed} failed; {} on the front\n",
            points - failed,
            self.front.len()
        );
        let mut rows = vec![vec!["point".to_owned()]];
        rows[0].extend(goals.objectives.iter().map(|o| goals.metrics[o.metric].path.clone()));
        rows[0].push("design".to_owned());
        for point in &self.front {
            let Ok(figures) = self.outcome(*point) else { continue };
            let mut row = vec![point.to_string()];
            row.extend(goals.objectives.iter().map(|o| {
                let value = figures.values[o.metric].unwrap_or_default();
                quantity(value, goals.metrics[o.metric].unit())
            }));
            row.push(self.name(*point));
            rows.push(row);
        }
        let columns = rows[0].len();
        let widths: Vec<usize> = (0..columns)
            .map(|c| rows.iter().map(|row| row[c].chars().count()).max().unwrap_or_default())
            .collect();
        for row in rows {
            let cells: Vec<String> =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            text.push_str(&format!("  {}\n", cells.join("  ").trim_end()));
        }
        text
    }
}

fn line(cells: impl Iterator<Item = String>) -> String {
    let mut text = cells.map(|cell| quoted(&cell)).collect::<Vec<_>>().join(",");
    text.push('\n');
    text
}
