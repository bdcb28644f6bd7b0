//! What a sweep is after: metrics to minimise or maximise, bounds to keep, and the front of points none beats.

use std::cmp::Ordering;

use reports::RunRecord;
use reports::columns::{self, COLUMNS, Column};
use serde::Serialize;
use serde_json::Value;
use soc_model::config::nearest;

use super::options::Refusal;

/// Tables of the record whose keys are names of components, formats or engines.
const OPEN_TABLES: &[&str] =
    &["energy.by_component.", "area_mm2.by_component.", "efficiency.peak_tops.", "cycles."];

/// A figure of every point.
#[derive(Clone, Debug)]
pub struct Metric {
    /// Path of keys in the record, separated by dots.
    pub path: String,
    /// Its row of the table of metrics; none for one component's or engine's share.
    pub column: Option<&'static Column>,
}

impl Metric {
    /// Name and unit for people.
    #[must_use]
    pub fn label(&self) -> String {
        match self.column {
            Some(c) if c.unit.is_empty() => c.name.to_owned(),
            Some(c) => format!("{} ({})", c.name, c.unit),
            None => self.path.clone(),
        }
    }

    /// The unit, empty for counts and for figures outside the table.
    #[must_use]
    pub fn unit(&self) -> &'static str {
        self.column.map_or("", |c| c.unit)
    }
}

/// Which way a metric is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sense {
    /// As small as can be.
    Minimise,
    /// As large as can be.
    Maximise,
}

/// One objective.
#[derive(Clone, Debug)]
pub struct Objective {
    /// Index into the metrics.
    pub metric: usize,
    /// Which way.
    pub sense: Sense,
}

/// How a metric stands to its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Less,
    AtMost,
    Greater,
    AtLeast,
}

impl Relation {
    /// Longer signs first, since the shorter are their beginnings.
    const ALL: [(&'static str, Self); 4] =
        [("<=", Self::AtMost), (">=", Self::AtLeast), ("<", Self::Less), (">", Self::Greater)];

    fn holds(self, value: f64, limit: f64) -> bool {
        match self {
            Self::Less => value < limit,
            Self::AtMost => value <= limit,
            Self::Greater => value > limit,
            Self::AtLeast => value >= limit,
        }
    }
}

/// A bound that a feasible point keeps.
#[derive(Clone, Debug)]
pub struct Constraint {
    /// As written.
    pub text: String,
    /// Index into the metrics.
    pub metric: usize,
    relation: Relation,
    limit: f64,
}

impl Constraint {
    /// Whether a value keeps it; a figure that is missing keeps nothing.
    #[must_use]
    pub fn holds(&self, value: Option<f64>) -> bool {
        value.is_some_and(|value| self.relation.holds(value, self.limit))
    }
}

/// Objectives, constraints and the metrics they and the tables need.
#[derive(Clone, Debug)]
pub struct Goals {
    /// Every metric of the table, then what objectives and constraints name besides.
    pub metrics: Vec<Metric>,
    /// What to minimise and maximise, in the order of the file.
    pub objectives: Vec<Objective>,
    /// Bounds.
    pub constraints: Vec<Constraint>,
}

impl Default for Goals {
    fn default() -> Self {
        let metrics = COLUMNS.iter().map(|c| Metric { path: c.path.to_owned(), column: Some(c) }).collect();
        Self { metrics, objectives: Vec::new(), constraints: Vec::new() }
    }
}

impl Goals {
    fn metric(&mut self, path: &str) -> Result<usize, Refusal> {
        if let Some(index) = self.metrics.iter().position(|m| m.path == path) {
            return Ok(index);
        }
        if OPEN_TABLES.iter().any(|table| path.strip_prefix(table).is_some_and(|rest| !rest.is_empty())) {
            self.metrics.push(Metric { path: path.to_owned(), column: None });
            return Ok(self.metrics.len() - 1);
        }
        let help = match nearest(path, COLUMNS.iter().map(|c| c.path)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                let headlines: Vec<&str> = columns::headlines().map(|c| c.path).collect();
                format!("among others there are {}", headlines.join(", "))
            }
        };
        Err(Refusal::new(format!("no metric `{path}`"), Some(help)))
    }

    /// Adds an objective.
    ///
    /// # Errors
    /// If there is no such metric or it is an objective already.
    pub(super) fn add_objective(&mut self, path: &str, sense: Sense) -> Result<(), Refusal> {
        let metric = self.metric(path)?;
        if self.objectives.iter().any(|o| o.metric == metric) {
            return Err(Refusal::new(format!("`{path}` is an objective already"), None));
        }
        self.objectives.push(Objective { metric, sense });
        Ok(())
    }

    /// Adds a constraint written `path < number`.
    ///
    /// # Errors
    /// If it is not written so or there is no such metric.
    pub(super) fn add_constraint(&mut self, text: &str) -> Result<(), Refusal> {
        let expected = || {
            let help = "for example \"area_mm2.total < 40\"".to_owned();
            Refusal::new(
                format!("expected a metric, one of < <= > >=, and a number, found {text:?}"),
                Some(help),
            )
        };
        let split = Relation::ALL.iter().find_map(|(sign, relation)| {
            let (path, limit) = text.split_once(sign)?;
            Some((path.trim(), *relation, limit.trim()))
        });
        let (path, relation, limit) = split.ok_or_else(expected)?;
        let limit: f64 = limit.parse().ok().filter(|limit: &f64| limit.is_finite()).ok_or_else(expected)?;
        let metric = self.metric(path)?;
        self.constraints.push(Constraint { text: text.to_owned(), metric, relation, limit });
        Ok(())
    }

    /// Every metric of a record, absent where the record has none.
    #[must_use]
    pub fn values(&self, record: &RunRecord) -> Vec<Option<f64>> {
        let open = self.metrics.iter().any(|m| m.column.is_none());
        let document = if open { serde_json::to_value(record).unwrap_or_default() } else { Value::Null };
        let value = |m: &Metric| match m.column {
            Some(column) => (column.get)(record),
            None => lookup(&document, &m.path),
        };
        self.metrics.iter().map(value).collect()
    }

    /// Constraints that a point with these values breaks.
    #[must_use]
    pub fn broken(&self, values: &[Option<f64>]) -> Vec<&Constraint> {
        self.constraints.iter().filter(|c| !c.holds(values[c.metric])).collect()
    }

    /// The point's objectives, smaller being better; none if it lacks one of them.
    #[must_use]
    pub fn score(&self, values: &[Option<f64>]) -> Option<Vec<f64>> {
        let one = |o: &Objective| {
            values[o.metric].map(|v| match o.sense {
                Sense::Minimise => v,
                Sense::Maximise => -v,
            })
        };
        self.objectives.iter().map(one).collect()
    }
}

/// The number at a path of keys that may themselves hold dots.
fn lookup(value: &Value, path: &str) -> Option<f64> {
    value.as_object()?.iter().find_map(|(key, inner)| {
        let rest = path.strip_prefix(key.as_str())?;
        if rest.is_empty() { inner.as_f64() } else { lookup(inner, rest.strip_prefix('.')?) }
    })
}

/// Of points with scores (smaller is better), those that no other point beats: at least as good in every objective
/// and better in one. Points with equal scores stand or fall together. In ascending order.
#[must_use]
pub fn front(points: &[(usize, Vec<f64>)]) -> Vec<usize> {
    let order = |a: &[f64], b: &[f64]| {
        a.iter().zip(b).map(|(a, b)| a.total_cmp(b)).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
    };
    let mut sorted: Vec<&(usize, Vec<f64>)> = points.iter().collect();
    // A point can only be beaten by one before it in this order.
    sorted.sort_by(|a, b| order(&a.1, &b.1).then(a.0.cmp(&b.0)));
    let beats = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| a <= b) && a != b;
    let mut front: Vec<&(usize, Vec<f64>)> = Vec::new();
    for point in sorted {
        if !front.iter().any(|kept| beats(&kept.1, &point.1)) {
            front.push(point);
        }
    }
    let mut indices: Vec<usize> = front.into_iter().map(|(index, _)| *index).collect();
    indices.sort_unstable();
    indices
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Goals, Sense, front, lookup};

    #[test]
    fn the_front_keeps_ties_and_drops_what_is_beaten() {
        let of = |points: &[[f64; 2]]| -> Vec<usize> {
            front(&points.iter().map(|p| p.to_vec()).enumerate().collect::<Vec<_>>())
        };
        assert_eq!(
            of(&[[1.0, 4.0], [2.0, 2.0], [3.0, 3.0], [4.0, 1.0], [2.0, 2.0], [2.0, 5.0]]),
            [0, 1, 3, 4]
        );
        assert_eq!(of(&[[1.0, 1.0], [1.0, 2.0]]), [0]);
        assert_eq!(of(&[[-0.0, 1.0], [0.0, 1.0]]), [0, 1]);
        assert_eq!(of(&[]), [0usize; 0]);
    }

    /// Against the definition, on points of a small grid so that ties and equals are common.
    #[test]
    fn the_front_is_its_definition() {
        let mut stream = sim_kernel::Stream::new(7, "sweep", "test points");
        for round in 0..50 {
            let points: Vec<(usize, Vec<f64>)> = (0..40)
                .map(|i| {
                    (
                        i,
                        (0..1 + round % 4)
                            .map(|_| f64::from(u32::try_from(stream.below(6)).expect("small")))
                            .collect(),
                    )
                })
                .collect();
            let beaten = |p: &[f64]| {
                points
                    .iter()
                    .any(|(_, q)| q.iter().zip(p).all(|(q, p)| q <= p) && q.iter().zip(p).any(|(q, p)| q < p))
            };
            let wanted: Vec<usize> = points.iter().filter(|(_, p)| !beaten(p)).map(|(i, _)| *i).collect();
            assert_eq!(front(&points), wanted);
        }
    }

    #[test]
    fn constraints_are_read_and_kept() {
        let mut goals = Goals::default();
        for text in ["power.mean_w<=4", "power.mean_w >= 2.5", "energy.by_component.npu.array < 1e-3"] {
            goals.add_constraint(text).expect("a constraint");
        }
        let [at_most, at_least, less] = &goals.constraints[..] else { panic!("three") };
        assert!(at_most.holds(Some(4.0)) && !at_most.holds(Some(4.1)) && !at_most.holds(None));
        assert!(at_least.holds(Some(2.5)) && !at_least.holds(Some(2.4)));
        assert!(less.holds(Some(9e-4)) && !less.holds(Some(1e-3)));
        for text in
            ["power.mean_w", "power.mean_w = 4", "power.mean_w < four", "power.mean_w < nan", "< 4", "a < 1"]
        {
            assert!(goals.add_constraint(text).is_err(), "{text}");
        }
        goals.add_objective("time.ttft_s", Sense::Minimise).expect("an objective");
        assert!(goals.add_objective("time.ttft_s", Sense::Maximise).is_err());
        let refusal = goals.add_objective("time.tftt_s", Sense::Minimise).expect_err("no such metric");
        assert_eq!(refusal.help.as_deref(), Some("did you mean `time.ttft_s`?"));
    }

    #[test]
    fn paths_lead_through_keys_with_dots() {
        let document = json!({"cycles": {"npu0.mx": {"busy": 3, "total": 4}, "npu0": {"x": 1}}});
        assert_eq!(lookup(&document, "cycles.npu0.mx.busy"), Some(3.0));
        assert_eq!(lookup(&document, "cycles.npu0.x"), Some(1.0));
        assert_eq!(lookup(&document, "cycles.npu0.mx"), None);
        assert_eq!(lookup(&document, "cycles.npu1.mx.busy"), None);
    }
}
