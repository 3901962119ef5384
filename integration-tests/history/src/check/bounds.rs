//! Bounds that hold in real time. What an answer told is true from its end on; a question may rely on what had been told
//! before it was asked. Times that are equal count as concurrent.

/// A value that only grows in a correct broker, by what answers told of it.
#[derive(Default)]
pub(super) struct Rising {
    /// When it was told, the largest value up to then, and the operation that told that. Sorted once sealed.
    points: Vec<(u64, i64, u32)>,
}

impl Rising {
    pub(super) fn tell(&mut self, when_us: u64, value: i64, operation: u32) {
        self.points.push((when_us, value, operation));
    }

    /// To be called after the last `tell` and before the first question.
    pub(super) fn seal(&mut self) {
        self.points.sort_unstable_by_key(|(when, _, operation)| (*when, *operation));
        let mut largest: Option<(i64, u32)> = None;
        for (_, value, operation) in &mut self.points {
            match largest {
                Some((most, by)) if most >= *value => (*value, *operation) = (most, by),
                _ => largest = Some((*value, *operation)),
            }
        }
    }

    /// The largest value told before then, and by which operation.
    pub(super) fn before(&self, when_us: u64) -> Option<(i64, u32)> {
        let count = self.points.partition_point(|(when, ..)| *when < when_us);
        count.checked_sub(1).map(|last| (self.points[last].1, self.points[last].2))
    }

    /// The largest value told at all.
    pub(super) fn most(&self) -> Option<(i64, u32)> {
        self.points.last().map(|(_, value, operation)| (*value, *operation))
    }
}

/// Bounds from above for a value that only grows: what a later question was told, it was not above earlier.
#[derive(Default)]
pub(super) struct Ceiling {
    /// When the question was asked, and the smallest value from then on. Sorted once sealed.
    points: Vec<(u64, i64)>,
}

impl Ceiling {
    pub(super) fn tell(&mut self, asked_us: u64, value: i64) {
        self.points.push((asked_us, value));
    }

    pub(super) fn seal(&mut self) {
        self.points.sort_unstable();
        let mut least = i64::MAX;
        for (_, value) in self.points.iter_mut().rev() {
            least = least.min(*value);
            *value = least;
        }
    }

    /// The smallest value that was told to a question from then on; `i64::MAX` where there was none.
    pub(super) fn from(&self, when_us: u64) -> i64 {
        let at = self.points.partition_point(|(asked, _)| *asked <= when_us);
        self.points.get(at).map_or(i64::MAX, |(_, value)| *value)
    }
}

/// The largest of a range, in logarithmic time.
pub(super) struct RangeMax {
    tree: Vec<i64>,
    leaves: usize,
}

impl RangeMax {
    pub(super) fn new(values: impl ExactSizeIterator<Item = i64>) -> Self {
        let leaves = values.len().max(1);
        let mut tree = vec![i64::MIN; leaves];
        tree.extend(values);
        tree.resize(2 * leaves, i64::MIN);
        for node in (1..leaves).rev() {
            tree[node] = tree[2 * node].max(tree[2 * node + 1]);
        }
        Self { tree, leaves }
    }

    /// `i64::MIN` for an empty range.
    pub(super) fn largest(&self, from: usize, to: usize) -> i64 {
        let (mut left, mut right, mut most) = (from + self.leaves, to.max(from) + self.leaves, i64::MIN);
        while left < right {
            if left % 2 == 1 {
                most = most.max(self.tree[left]);
                left += 1;
            }
            if right % 2 == 1 {
                right -= 1;
                most = most.max(self.tree[right]);
            }
            (left, right) = (left / 2, right / 2);
        }
        most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_strict_in_time() {
        let mut rising = Rising::default();
        for (when, value, operation) in [(30, 5, 3), (10, 4, 1), (20, 2, 2)] {
            rising.tell(when, value, operation);
        }
        rising.seal();
        let told: Vec<_> = [10, 11, 21, 31].iter().map(|when| rising.before(*when)).collect();
        assert_eq!(told, [None, Some((4, 1)), Some((4, 1)), Some((5, 3))]);
        let mut ceiling = Ceiling::default();
        for (asked, value) in [(10, 7), (20, 3), (30, 9)] {
            ceiling.tell(asked, value);
        }
        ceiling.seal();
        assert_eq!([9, 10, 20, 30].map(|when| ceiling.from(when)), [3, 3, 9, i64::MAX]);
    }

    #[test]
    fn the_largest_of_every_range() {
        let values = [3, 9, 1, 4, 7, 7, 2];
        let tree = RangeMax::new(values.into_iter());
        for from in 0..=values.len() {
            for to in from..=values.len() {
                let plain = values[from..to].iter().copied().max().unwrap_or(i64::MIN);
                assert_eq!(tree.largest(from, to), plain, "{from}..{to}");
            }
        }
    }
}
