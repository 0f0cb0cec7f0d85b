//! Which traces are recorded (OpenTelemetry specification, "Built-in samplers").

use std::fmt;

use super::context::TraceId;

/// The samplers by name.
const NAMES: [(&str, bool, Root); 6] = [
    ("always_on", false, Root::All),
    ("always_off", false, Root::Nothing),
    ("traceidratio", false, Root::Ratio(1 << 63)),
    ("parentbased_always_on", true, Root::All),
    ("parentbased_always_off", true, Root::Nothing),
    ("parentbased_traceidratio", true, Root::Ratio(1 << 63)),
];

/// Decides whether a request is sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampler {
    /// Whether a request with a trace context is sampled as its sender decided.
    follows_parent: bool,
    root: Root,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Root {
    All,
    Nothing,
    /// Traces whose last 63 bits are below this.
    Ratio(u64),
}

/// The error for an unknown name, with the names of all samplers.
#[derive(Debug)]
pub struct Expected;

impl fmt::Display for Expected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = NAMES.iter().map(|(name, ..)| *name).collect();
        write!(formatter, "expected {}", names.join(", "))
    }
}

impl Sampler {
    /// The sampler with this name; a ratio is that of all traces.
    ///
    /// # Errors
    /// If there is none.
    pub fn named(name: &str) -> Result<Self, Expected> {
        let (_, follows_parent, root) = NAMES.iter().find(|(known, ..)| *known == name).ok_or(Expected)?;
        Ok(Self { follows_parent: *follows_parent, root: *root })
    }

    /// Sets the ratio, if the sampler has one.
    #[must_use]
    pub fn with_ratio(self, ratio: f64) -> Self {
        match self.root {
            Root::Ratio(_) => Self { root: Root::Ratio(bound(ratio)), ..self },
            Root::All | Root::Nothing => self,
        }
    }

    /// Whether a request is sampled; `parent` is its sender's decision, if it has a trace context.
    pub fn samples(&self, parent: Option<bool>, trace: TraceId) -> bool {
        match (parent.filter(|_| self.follows_parent), self.root) {
            (Some(is_sampled), _) => is_sampled,
            (None, Root::All) => true,
            (None, Root::Nothing) => false,
            (None, Root::Ratio(below)) => {
                let [.., a, b, c, d, e, f, g, h] = trace.0;
                u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1 < below
            }
        }
    }
}

/// Computed as OpenTelemetry's own samplers do, so that services with the same ratio sample the same traces.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a ratio of 2^63 is a whole number of 64 bits"
)]
fn bound(ratio: f64) -> u64 {
    (ratio.clamp(0.0, 1.0) * 9_223_372_036_854_775_808.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, ratio: f64) -> Sampler {
        Sampler::named(name).unwrap_or_else(|expected| panic!("{expected}")).with_ratio(ratio)
    }

    #[test]
    fn a_parents_decision_is_followed_if_the_sampler_is_parent_based() {
        let trace = TraceId::random();
        for (name, without_parent, of_sampled, of_unsampled) in [
            ("always_on", true, true, true),
            ("always_off", false, false, false),
            ("parentbased_always_on", true, true, false),
            ("parentbased_always_off", false, true, false),
        ] {
            let sampler = named(name, 1.0);
            let decided = [None, Some(true), Some(false)].map(|parent| sampler.samples(parent, trace));
            assert_eq!(decided, [without_parent, of_sampled, of_unsampled], "{name}");
        }
        assert!(Sampler::named("sometimes").is_err());
    }

    #[test]
    fn a_ratio_samples_about_that_many_traces_and_always_the_same_ones() {
        let ids: Vec<TraceId> = (0..20_000).map(|_| TraceId::random()).collect();
        let sampled = |sampler: &Sampler| ids.iter().filter(|id| sampler.samples(None, **id)).count();
        let tenth = named("traceidratio", 0.1);
        assert!((1500..2500).contains(&sampled(&tenth)), "{}", sampled(&tenth));
        assert_eq!(sampled(&tenth), sampled(&named("parentbased_traceidratio", 0.1)));
        assert_eq!(sampled(&named("traceidratio", 0.0)), 0);
        assert_eq!(sampled(&named("traceidratio", 1.0)), ids.len());
    }
}
