//! Medians, quantiles, and how sure they are: a bootstrap over rounds.

/// Resamples of a bootstrap.
const RESAMPLES: usize = 2000;

/// A figure with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

impl Estimate {
    /// A count, which is what it is.
    pub fn exact(value: f64) -> Self {
        Self { value, low: value, high: value }
    }
}

/// The `q`-quantile (0 to 1) by nearest rank; NaN of nothing.
pub fn quantile(samples: &[f64], q: f64) -> f64 {
    if samples.is_empty() {
        return f64::NAN;
    }
    let mut samples = samples.to_vec();
    let rank = (q * (samples.len() - 1) as f64).round() as usize;
    *samples.select_nth_unstable_by(rank, f64::total_cmp).1
}

pub fn median(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}

/// `estimate` of all rounds, with the 2.5 and 97.5 percentiles of what it says of rounds drawn with repetition
/// (Efron's percentile bootstrap). The draws are the same in every run.
pub fn bootstrap<R>(rounds: &[R], estimate: impl Fn(&[&R]) -> f64) -> Estimate {
    let all: Vec<&R> = rounds.iter().collect();
    let value = estimate(&all);
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut draw = || {
        // xorshift64* (Vigna, 2016).
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as usize % rounds.len()
    };
    let estimates: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let drawn: Vec<&R> = (0..rounds.len()).map(|_| &rounds[draw()]).collect();
            estimate(&drawn)
        })
        .collect();
    Estimate { value, low: quantile(&estimates, 0.025), high: quantile(&estimates, 0.975) }
}

/// The median of one number a round.
pub fn median_of_rounds(rounds: &[f64]) -> Estimate {
    bootstrap(rounds, |drawn| median(&drawn.iter().map(|round| **round).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_by_nearest_rank() {
        let samples: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        assert_eq!((median(&samples), quantile(&samples, 0.99)), (50.0, 99.0));
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn an_interval_holds_its_value_and_narrows_to_it() {
        let noisy = median_of_rounds(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        assert!(noisy.low < noisy.value && noisy.value < noisy.high);
        let quiet = median_of_rounds(&[4.0; 10]);
        assert_eq!(quiet, Estimate::exact(4.0));
    }
}
