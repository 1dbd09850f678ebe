// Nested lists of numbers, as a JSON decoder leaves them, into an array of float32 in one pass.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cmath>
#include <vector>

namespace py = pybind11;

namespace {

using Lengths = std::vector<py::ssize_t>;

// Whether every list has the length of its axis. Looked at before anything is allocated, since one
// long row beside many short ones would ask for far more than the request holds.
bool agrees(PyObject* value, const Lengths& shape, std::size_t axis) {
  if (!PyList_CheckExact(value) || PyList_GET_SIZE(value) != shape[axis]) return false;
  if (axis + 1 == shape.size()) return true;
  for (py::ssize_t i = 0; i < shape[axis]; ++i)
    if (!agrees(PyList_GET_ITEM(value, i), shape, axis + 1)) return false;
  return true;
}

// Writes the numbers of a list that agrees; false where one is no number or not finite.
bool fill(PyObject* value, std::size_t axes, float*& out) {
  const py::ssize_t n = PyList_GET_SIZE(value);
  if (axes > 1) {
    for (py::ssize_t i = 0; i < n; ++i)
      if (!fill(PyList_GET_ITEM(value, i), axes - 1, out)) return false;
    return true;
  }
  bool finite = true;
  for (py::ssize_t i = 0; i < n; ++i) {
    PyObject* item = PyList_GET_ITEM(value, i);
    double number;
    if (PyFloat_CheckExact(item)) {
      number = PyFloat_AS_DOUBLE(item);
    } else if (PyLong_CheckExact(item)) {  // not a boolean
      number = PyLong_AsDouble(item);
      if (number == -1.0 && PyErr_Occurred()) {
        PyErr_Clear();
        return false;
      }
    } else {
      return false;
    }
    const float rounded = static_cast<float>(number);
    finite &= std::isfinite(rounded);
    *out++ = rounded;
  }
  return finite;
}

// The lengths that the first elements have; false where they are not those that are wanted.
bool read_shape(PyObject* value, const py::tuple& wanted, Lengths& shape) {
  for (std::size_t axis = 0; axis <= wanted.size(); ++axis) {
    if (!PyList_CheckExact(value)) return false;
    const py::ssize_t n = PyList_GET_SIZE(value);
    if (n == 0) return false;
    if (axis > 0) {
      const py::handle want = wanted[axis - 1];
      if (!want.is_none() && want.cast<py::ssize_t>() != n) return false;
    }
    shape.push_back(n);
    value = PyList_GET_ITEM(value, 0);
  }
  return true;
}

py::object float32_array(const py::object& value, const py::tuple& shape) {
  Lengths lengths;
  if (!read_shape(value.ptr(), shape, lengths) || !agrees(value.ptr(), lengths, 0))
    return py::none();
  py::array_t<float> array(lengths);
  float* out = array.mutable_data();
  if (!fill(value.ptr(), lengths.size(), out)) return py::none();
  return array;
}

bool is_sequence(PyObject* value) { return PyList_Check(value) || PyTuple_Check(value); }

// Whether a row has the lengths of the axes from `axis` on; an axis of 0 has any length above 0,
// and has that of the first list that is met from then on.
bool fits(PyObject* row, Lengths& shape, std::size_t axis) {
  if (axis == shape.size()) return true;
  if (!is_sequence(row)) return false;
  const py::ssize_t n = PySequence_Fast_GET_SIZE(row);
  if (n == 0) return false;
  if (shape[axis] == 0) shape[axis] = n;
  if (shape[axis] != n) return false;
  if (axis + 1 == shape.size()) return true;
  for (py::ssize_t i = 0; i < n; ++i)
    if (!fits(PySequence_Fast_GET_ITEM(row, i), shape, axis + 1)) return false;
  return true;
}

// Never deeper into the lists than a row has axes, and never at their elements.
py::ssize_t first_misfit(const py::object& value, const py::tuple& shape) {
  if (!is_sequence(value.ptr())) return 0;
  const py::ssize_t rows = PySequence_Fast_GET_SIZE(value.ptr());
  if (rows == 0) return 0;
  Lengths lengths;
  for (const py::handle axis : shape)
    lengths.push_back(axis.is_none() ? 0 : axis.cast<py::ssize_t>());
  for (py::ssize_t row = 0; row < rows; ++row)
    if (!fits(PySequence_Fast_GET_ITEM(value.ptr(), row), lengths, 0)) return row;
  return -1;
}

}  // namespace

PYBIND11_MODULE(_nested_lists, m) {
  m.doc() = "Nested lists of numbers as arrays.";
  m.def("float32_array", &float32_array, py::arg("value"), py::arg("shape"));
  m.def("first_misfit", &first_misfit, py::arg("value"), py::arg("shape"));
}
