//! Einstein's summation.

use std::collections::BTreeMap;

use super::in_f32;
use crate::shape::broadcast_dims;
use crate::{DType, Error, Result, Tensor};

impl Tensor {
    /// Sums of products by the letters that `formula` gives to the dimensions: of the operands first, between commas,
    /// and after `->` of the result. Of all values of the letters that the result lacks, the products of the operands'
    /// elements are added up.
    ///
    /// | formula | is |
    /// |---|---|
    /// | `ij,jk->ik` | the product of matrices |
    /// | `bij,bjk->bik` | the same for each of a batch |
    /// | `i,j->ij` | the outer product |
    /// | `ij->ji`, `ij->i`, `ij->` | the transpose, the sums of rows, the sum |
    /// | `ii->i`, `ii->` | the diagonal, the trace |
    /// | `...ij,...jk->...ik` | the product of matrices, over leading dimensions that broadcast as in NumPy |
    ///
    /// Letters are those of ASCII, upper and lower case being different; spaces are ignored. Without `->`, the result
    /// has what `...` stands for, and then the letters that occur once, in the order of ASCII. A size of 1 is stretched
    /// where `...` stands for it only.
    ///
    /// Products are formed from left to right; the order of the operands decides what that takes. Each sum of products
    /// is a [`dot_general`](Tensor::dot_general), of the same precision.
    ///
    /// # Errors
    /// Where the formula is malformed, has not one term for each operand or not one letter for each dimension, gives
    /// one letter to different sizes, or has a letter twice in the result or there only; or where the operands differ
    /// in dtype or are preds.
    ///
    /// ```
    /// use xlann::{Array, DType, Function, Shape, Tensor};
    ///
    /// // x A y
    /// let shapes = [[2].to_vec(), vec![2, 3], vec![3]].map(|dims| Shape::new(DType::F32, dims));
    /// let f = Function::trace("f", &shapes, |x| Tensor::einsum("i,ij,j->", &[&x[0], &x[1], &x[2]]))?;
    /// let [x, y] = [Array::new([2], &[1f32, 2.0])?, Array::new([3], &[1f32, 0.0, 1.0])?];
    /// let a = Array::new([2, 3], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0])?;
    /// assert_eq!(f.eval(&[x, a, y])?, [Array::scalar(24f32)]);
    ///
    /// let refused = Function::trace("f", &shapes[..2], |x| Tensor::einsum("i,jk->il", &[&x[0], &x[1]]));
    /// let expected = "einsum: formula must be of a result whose letters the operands have, got \"i,jk->il\" with l";
    /// assert_eq!(refused.unwrap_err().to_string(), expected);
    /// # Ok::<(), xlann::Error>(())
    /// ```
    #[doc(alias("tensordot", "outer", "inner", "trace", "diagonal", "diag", "bilinear"))]
    pub fn einsum(formula: &str, operands: &[&Tensor]) -> Result<Tensor> {
        let Some(&first) = operands.first() else {
            return Err(Error::argument("einsum", "operands", "at least 1", 0));
        };
        let formula = Formula::parse(formula)?;
        if formula.operands.len() != operands.len() {
            let expected = format!("of {} operands, as came", operands.len());
            return Err(formula.refused(&expected, &format!("{}", formula.operands.len())));
        }
        for (index, operand) in operands.iter().enumerate() {
            if operand.dtype() == DType::Pred {
                let argument = format!("dtype of operand {index}");
                return Err(Error::argument("einsum", argument, "a number", operand.dtype()));
            }
            if operand.dtype() != first.dtype() {
                let expected = format!("of dtype {}, as operand 0", first.dtype());
                return Err(Error::argument("einsum", format!("operand {index}"), expected, operand.shape()));
            }
        }
        let (terms, result) = formula.labels(operands)?;
        let sizes = formula.sizes(operands, &terms)?;
        let mut factors = operands.iter().zip(terms).map(|(&tensor, labels)| {
            let factor = Factor { tensor: tensor.clone(), labels };
            factor.stretched_dropped(&sizes)?.diagonal()
        });
        let mut factors = factors.by_ref().collect::<Result<Vec<_>>>()?;
        let mut product = factors.remove(0);
        for position in 0..=factors.len() {
            let later = &factors[position..];
            let needed = |label: &Label| {
                result.contains(label) || later.iter().any(|factor| factor.labels.contains(label))
            };
            product = product.summed(needed)?;
            if let Some(next) = later.first() {
                let after = &later[1..];
                let kept = |label: &Label| {
                    result.contains(label) || after.iter().any(|factor| factor.labels.contains(label))
                };
                let next = next.clone().summed(|label| product.labels.contains(label) || kept(label))?;
                product = product.times(&next, kept)?;
            }
        }
        product.arranged(&result, &sizes)
    }
}

/// What a formula gives to a dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    /// A place among those that `...` stands for, counted from the last one.
    Ellipsis(usize),
    Letter(char),
}

impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Label::Ellipsis(_) => f.write_str("..."),
            Label::Letter(letter) => write!(f, "{letter}"),
        }
    }
}

/// A term of a formula: its letters, and how many of them stand before an ellipsis, where there is one.
struct Term {
    letters: Vec<char>,
    ellipsis: Option<usize>,
}

struct Formula<'a> {
    text: &'a str,
    operands: Vec<Term>,
    result: Option<Term>,
}

impl<'a> Formula<'a> {
    fn parse(text: &'a str) -> Result<Formula<'a>> {
        let mut formula = Formula { text, operands: Vec::new(), result: None };
        let (operands, result) = match text.split_once("->") {
            Some((operands, result)) => (operands, Some(result)),
            None => (text, None),
        };
        formula.operands = operands.split(',').map(|term| formula.term(term)).collect::<Result<_>>()?;
        formula.result = result.map(|term| formula.term(term)).transpose()?;
        if let Some(result) = &formula.result
            && let Some(letter) = repeated_letter(&result.letters)
        {
            let expected = "of a result with each letter once";
            return Err(formula.refused(expected, &format!("{letter} twice")));
        }
        Ok(formula)
    }

    fn term(&self, text: &str) -> Result<Term> {
        let mut term = Term { letters: Vec::new(), ellipsis: None };
        let mut rest = text.trim_start();
        while let Some(next) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix("...") {
                if term.ellipsis.replace(term.letters.len()).is_some() {
                    return Err(self.refused("of terms with one ellipsis at most", "two in one"));
                }
                rest = after;
            } else if next.is_ascii_alphabetic() {
                term.letters.push(next);
                rest = &rest[1..];
            } else {
                let expected = "letters and ... between commas, and once -> before those of the result";
                return Err(self.refused(expected, &format!("{next:?}")));
            }
            rest = rest.trim_start();
        }
        Ok(term)
    }

    /// The error of a formula, that has what is not expected.
    fn refused(&self, expected: &str, has: &str) -> Error {
        Error::argument("einsum", "formula", expected, format!("{:?} with {has}", self.text))
    }

    /// The labels of the operands' dimensions and of the result's.
    fn labels(&self, operands: &[&Tensor]) -> Result<(Vec<Vec<Label>>, Vec<Label>)> {
        let mut rank = 0;
        let mut terms = Vec::new();
        for (index, (term, operand)) in self.operands.iter().zip(operands).enumerate() {
            let more = operand.rank().checked_sub(term.letters.len());
            let Some(more) = more.filter(|&more| more == 0 || term.ellipsis.is_some()) else {
                let least = if term.ellipsis.is_some() { " at least" } else { "" };
                let expected = format!("of rank {}{least}, as {:?} says", term.letters.len(), self.text);
                return Err(Error::argument("einsum", format!("operand {index}"), expected, operand.shape()));
            };
            rank = rank.max(more);
            terms.push(term.labels(more));
        }
        let result = match &self.result {
            Some(term) => {
                if rank > 0 && term.ellipsis.is_none() {
                    let expected =
                        "of a result with an ellipsis, as those of the operands stand for dimensions";
                    return Err(self.refused(expected, "none"));
                }
                term.labels(rank)
            }
            None => {
                let mut letters: Vec<char> =
                    self.operands.iter().flat_map(|term| term.letters.iter().copied()).collect();
                letters.sort_unstable();
                let once = letters.chunk_by(|x, y| x == y).filter(|same| same.len() == 1);
                Term { letters: once.flatten().copied().collect(), ellipsis: Some(0) }.labels(rank)
            }
        };
        let unknown = |label: &&Label| !terms.iter().any(|labels| labels.contains(label));
        if let Some(label) = result.iter().find(unknown) {
            let expected = "of a result whose letters the operands have";
            return Err(self.refused(expected, &label.to_string()));
        }
        Ok((terms, result))
    }

    /// The size of each label.
    fn sizes(&self, operands: &[&Tensor], terms: &[Vec<Label>]) -> Result<BTreeMap<Label, usize>> {
        let mut sizes = BTreeMap::new();
        let mut leading = Vec::new();
        for (index, (operand, labels)) in operands.iter().zip(terms).enumerate() {
            let mut stretched = Vec::new();
            for (&label, &size) in labels.iter().zip(operand.dims()) {
                if let Label::Ellipsis(_) = label {
                    stretched.push(size);
                    continue;
                }
                let known = *sizes.entry(label).or_insert(size);
                if known != size {
                    let expected = format!("of size {known} along {label} of {:?}", self.text);
                    return Err(Error::argument(
                        "einsum",
                        format!("operand {index}"),
                        expected,
                        operand.shape(),
                    ));
                }
            }
            leading = broadcast_dims("einsum", &leading, &stretched)?;
        }
        sizes.extend(leading.iter().rev().enumerate().map(|(place, &size)| (Label::Ellipsis(place), size)));
        Ok(sizes)
    }
}

impl Term {
    /// The labels, where the ellipsis stands for `more` dimensions.
    fn labels(&self, more: usize) -> Vec<Label> {
        let (before, after) = self.letters.split_at(self.ellipsis.unwrap_or(0));
        let letters = |letters: &[char]| letters.iter().copied().map(Label::Letter).collect::<Vec<_>>();
        [letters(before), (0..more).rev().map(Label::Ellipsis).collect(), letters(after)].concat()
    }
}

fn repeated_letter(letters: &[char]) -> Option<char> {
    let repeated = |(place, letter): &(usize, &char)| letters[..*place].contains(letter);
    letters.iter().enumerate().find(repeated).map(|(_, &letter)| letter)
}

/// A tensor with a label for each dimension.
#[derive(Clone)]
struct Factor {
    tensor: Tensor,
    labels: Vec<Label>,
}

impl Factor {
    /// Without the dimensions of size 1 that are stretched.
    fn stretched_dropped(self, sizes: &BTreeMap<Label, usize>) -> Result<Factor> {
        let kept: Vec<usize> = (0..self.labels.len())
            .filter(|&axis| sizes.get(&self.labels[axis]) == Some(&self.tensor.dims()[axis]))
            .collect();
        if kept.len() == self.labels.len() {
            return Ok(self);
        }
        let dims: Vec<usize> = kept.iter().map(|&axis| self.tensor.dims()[axis]).collect();
        let labels = kept.iter().map(|&axis| self.labels[axis]).collect();
        Ok(Factor { tensor: self.tensor.reshape(&dims)?, labels })
    }

    /// The elements whose indices of equal labels are equal, along one dimension for each label.
    fn diagonal(self) -> Result<Factor> {
        let Factor { mut tensor, mut labels } = self;
        while let Some((axis, first)) = (0..labels.len()).find_map(|axis| {
            labels[..axis].iter().position(|label| *label == labels[axis]).map(|first| (axis, first))
        }) {
            let label = labels.remove(axis);
            labels.remove(first);
            labels.push(label);
            // Last, and as one, the elements of the diagonal are as far apart as there are columns, and one more.
            let last = tensor.rank() - 1;
            tensor = tensor.move_axis(axis as isize, -1)?.move_axis(first as isize, last as isize - 1)?;
            let (leading, size) = (&tensor.dims()[..last - 1], tensor.dims()[last]);
            let flat = tensor.reshape(&[leading, &[size * size]].concat())?;
            tensor = flat.slice_in_dim(0, size * size, size + 1, -1)?;
        }
        Ok(Factor { tensor, labels })
    }

    /// The sums over the dimensions whose labels are not needed.
    fn summed(self, needed: impl Fn(&Label) -> bool) -> Result<Factor> {
        let (kept, summed): (Vec<usize>, Vec<usize>) =
            (0..self.labels.len()).partition(|&axis| needed(&self.labels[axis]));
        if summed.is_empty() {
            return Ok(self);
        }
        let axes: Vec<isize> = summed.iter().map(|&axis| axis as isize).collect();
        let tensor = in_f32(&self.tensor, |x| x.reduce_sum(&axes))?;
        Ok(Factor { tensor, labels: kept.iter().map(|&axis| self.labels[axis]).collect() })
    }

    /// The products with another factor, summed over what both have and is not kept.
    fn times(&self, other: &Factor, kept: impl Fn(&Label) -> bool) -> Result<Factor> {
        let shared = self.labels.iter().filter(|label| other.labels.contains(label));
        let (batch, contracting): (Vec<Label>, Vec<Label>) = shared.partition(|label| kept(label));
        let own = |factor: &Factor, shared: &[Label]| -> Vec<Label> {
            let free = factor.labels.iter().filter(|label| !shared.contains(label));
            free.copied().collect()
        };
        let shared = [batch.as_slice(), &contracting].concat();
        let labels = [batch.clone(), own(self, &shared), own(other, &shared)].concat();
        let tensor = if contracting.is_empty() {
            // A product of elements is exact on targets that round the operands of contractions.
            let size = |label: &Label| self.size(label).or(other.size(label)).map(|size| (*label, size));
            let sizes = labels.iter().filter_map(size).collect();
            self.arranged(&labels, &sizes)? * other.arranged(&labels, &sizes)?
        } else {
            let (contracted, batched) = (
                (self.axes(&contracting), other.axes(&contracting)),
                (self.axes(&batch), other.axes(&batch)),
            );
            let contracted = (contracted.0.as_slice(), contracted.1.as_slice());
            self.tensor.dot_general(&other.tensor, contracted, (&batched.0, &batched.1))
        };
        Ok(Factor { tensor: tensor?, labels })
    }

    /// The size of the dimension of that label.
    fn size(&self, label: &Label) -> Option<usize> {
        let axis = self.labels.iter().position(|own| own == label)?;
        Some(self.tensor.dims()[axis])
    }

    /// The dimensions of these labels, which it has.
    fn axes(&self, labels: &[Label]) -> Vec<usize> {
        labels.iter().filter_map(|label| self.labels.iter().position(|own| own == label)).collect()
    }

    /// The tensor with a dimension for each of these labels, in their order, repeated along those that it lacks.
    fn arranged(&self, labels: &[Label], sizes: &BTreeMap<Label, usize>) -> Result<Tensor> {
        let permutation: Vec<isize> = self.axes(labels).iter().map(|&axis| axis as isize).collect();
        let tensor = match permutation.is_sorted() {
            true => self.tensor.clone(),
            false => self.tensor.transpose(&permutation)?,
        };
        if tensor.rank() == labels.len() {
            return Ok(tensor);
        }
        let dims: Vec<usize> = labels.iter().filter_map(|label| sizes.get(label).copied()).collect();
        let places: Vec<usize> =
            (0..labels.len()).filter(|&place| self.labels.contains(&labels[place])).collect();
        tensor.broadcast_in_dim(&dims, &places)
    }
}
