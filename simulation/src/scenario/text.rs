//! A scenario as lines of text: one JSON object a line, so that a person can read it, and leave a line out. Lines that begin with `#`
//! and empty lines are for people.

use super::{
    ClientPlan, PlannedFault, PlannedOperation, PlannedWish, Scenario, Visit, VolumePlan, World,
};
use serde::{Deserialize, Serialize};

/// Lines of a transcript at most.
const LINES_MAX: usize = 200_000;
/// Clients, volumes and nodes that a transcript may name.
const VOLUMES_MAX: usize = 64;

/// What is wrong with a transcript.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct TextError {
    /// Which line, from 1.
    pub line: usize,
    /// What is wrong, and what is expected.
    pub what: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Line {
    Seed(u64),
    World(World),
    Volume(VolumePlan),
    Fault(PlannedFault),
    Operator(PlannedWish),
    /// A client of the volume with this index.
    Client {
        volume: usize,
    },
    /// Of the client above.
    Visit {
        after_us: u64,
        node: usize,
        depth: usize,
        rude: bool,
    },
    /// In the visit above.
    Do(PlannedOperation),
}

impl Scenario {
    /// As text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut lines = vec![Line::Seed(self.seed), Line::World(self.world.clone())];
        lines.extend(self.volumes.iter().cloned().map(Line::Volume));
        lines.extend(self.faults.iter().cloned().map(Line::Fault));
        lines.extend(self.wishes.iter().cloned().map(Line::Operator));
        for client in &self.clients {
            lines.push(Line::Client {
                volume: client.volume,
            });
            for visit in &client.visits {
                lines.push(Line::Visit {
                    after_us: visit.after_us,
                    node: visit.node,
                    depth: visit.depth,
                    rude: visit.rude,
                });
                lines.extend(visit.operations.iter().copied().map(Line::Do));
            }
        }
        let mut text = String::new();
        for line in lines {
            text.push_str(&serde_json::to_string(&line).expect("plain data has a text"));
            text.push('\n');
        }
        text
    }

    /// The scenario that a text describes.
    ///
    /// # Errors
    /// The first line that says nothing sensible.
    pub fn parse(text: &str) -> Result<Scenario, TextError> {
        let (mut seed, mut world) = (None, None);
        let mut scenario = Parts::default();
        for (text, line) in text.lines().zip(1..) {
            if text.trim().is_empty() || text.starts_with('#') {
                continue;
            }
            let wrong = |what: String| TextError { line, what };
            if line > LINES_MAX {
                return Err(wrong(format!("a transcript has at most {LINES_MAX} lines")));
            }
            match serde_json::from_str(text).map_err(|error| wrong(error.to_string()))? {
                Line::Seed(value) => seed = Some(value),
                Line::World(value) => world = Some(value),
                other => scenario.take(other).map_err(wrong)?,
            }
        }
        let missing = |what: &str| TextError {
            line: text.lines().count(),
            what: format!("the transcript ends without a `{what}` line"),
        };
        let scenario = Scenario {
            seed: seed.ok_or_else(|| missing("seed"))?,
            world: world.ok_or_else(|| missing("world"))?,
            volumes: scenario.volumes,
            faults: scenario.faults,
            wishes: scenario.wishes,
            clients: scenario.clients,
        };
        scenario
            .check()
            .map_err(|what| TextError { line: 0, what })?;
        Ok(scenario)
    }

    fn check(&self) -> Result<(), String> {
        if self.volumes.is_empty() || self.volumes.len() > VOLUMES_MAX {
            return Err(format!("a run has 1 to {VOLUMES_MAX} volumes"));
        }
        self.world
            .shape()
            .check()
            .map_err(|error| error.to_string())?;
        for client in &self.clients {
            let Some(volume) = self.volumes.get(client.volume) else {
                return Err(format!("a client names volume {}", client.volume));
            };
            let sectors = volume.blocks * 8;
            for visit in &client.visits {
                let fits = |one: &PlannedOperation| {
                    one.count > 0
                        && one
                            .first
                            .checked_add(one.count)
                            .is_some_and(|end| end <= sectors)
                };
                if visit.node > 1 || visit.depth == 0 || !visit.operations.iter().all(fits) {
                    return Err(format!(
                        "a visit is to node 0 or 1, with a depth of 1 or more and operations inside of {sectors} sectors; this one is not: {visit:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Parts {
    volumes: Vec<VolumePlan>,
    faults: Vec<PlannedFault>,
    wishes: Vec<PlannedWish>,
    clients: Vec<ClientPlan>,
}

impl Parts {
    fn take(&mut self, line: Line) -> Result<(), String> {
        match line {
            Line::Seed(_) | Line::World(_) => unreachable!("taken before"),
            Line::Volume(volume) => self.volumes.push(volume),
            Line::Fault(fault) => self.faults.push(fault),
            Line::Operator(wish) => self.wishes.push(wish),
            Line::Client { volume } => self.clients.push(ClientPlan {
                volume,
                visits: Vec::new(),
            }),
            Line::Visit {
                after_us,
                node,
                depth,
                rude,
            } => {
                let client = self.clients.last_mut().ok_or("a visit before any client")?;
                client.visits.push(Visit {
                    after_us,
                    node,
                    depth,
                    rude,
                    operations: Vec::new(),
                });
            }
            Line::Do(operation) => {
                let client = self.clients.last_mut();
                let visit = client.and_then(|client| client.visits.last_mut());
                visit
                    .ok_or("an operation before any visit")?
                    .operations
                    .push(operation);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::scenario::{Scenario, Style};

    #[test]
    fn a_scenario_survives_being_written_down() {
        for seed in 0..20 {
            let scenario = Scenario::drawn(seed, Style::Swarm);
            let text = scenario.to_text();
            assert_eq!(Scenario::parse(&text).unwrap(), scenario);
        }
    }

    #[test]
    fn a_text_that_says_nothing_sensible_is_refused_with_its_line() {
        let text = Scenario::drawn(1, Style::Swarm).to_text();
        for (bad, line) in [("nonsense", 1), ("{\"do\":{}}", 1)] {
            let error = Scenario::parse(&format!("{bad}\n{text}")).unwrap_err();
            assert_eq!(error.line, line, "{error}");
        }
        assert!(Scenario::parse("").is_err());
    }
}
