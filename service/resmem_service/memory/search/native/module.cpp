// The Python face of the kernel: segments, and one call that corrects a whole batch.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "order.hpp"
#include "segments.hpp"
#include "shared_counter.hpp"
#include "soft_knn.hpp"

namespace py = pybind11;
using namespace resmem;

namespace {

// What is read in some 0.1 ms. To give the GIL away for less costs more than it gains: a thread that
// takes it in between keeps it for longer than that.
constexpr std::size_t kLockedNumbers = 1U << 20U;
constexpr std::size_t kLinksLooked = 32;

template <typename T>
Array<T> filled(py::ssize_t rows, py::ssize_t columns, T value) {
  Array<T> array({rows, columns});
  std::fill_n(array.mutable_data(), array.size(), value);
  return array;
}

py::tuple correct(const std::vector<std::shared_ptr<Segment>>& segments,
                  const Array<float>& queries, std::size_t width, std::size_t k, std::size_t ef,
                  double sigma, double alpha) {
  if (queries.ndim() != 2) throw py::value_error("queries must be a matrix");
  if (k == 0 || ef == 0 || !(sigma > 0) || !(alpha >= 0))
    throw py::value_error("k, ef and sigma must be above 0, alpha at least 0");
  const auto dim = static_cast<std::size_t>(queries.shape(1));
  std::vector<View> views;
  std::size_t numbers = 0;  // that are read for one query, about
  for (const auto& segment : segments) {
    if (segment->dim() != dim || segment->codec().width() != width)
      throw py::value_error("a segment has another dimension or width than the batch");
    const std::size_t rows = segment->rows();
    if (rows <= segment->dead_rows()) continue;  // nothing in it votes
    views.push_back({segment.get(), dynamic_cast<const SealedSegment*>(segment.get()),
                     dynamic_cast<const GrowingSegment*>(segment.get()), rows});
    numbers += dim * (views.back().growing ? rows : std::min(rows, kLinksLooked * ef));
  }
  const py::ssize_t n = queries.shape(0), columns = static_cast<py::ssize_t>(k);
  Array<float> residuals = filled<float>(n, static_cast<py::ssize_t>(width), 0.0F);
  Array<std::int64_t> sequences = filled<std::int64_t>(n, columns, 0);
  Array<double> distances = filled(n, columns, std::numeric_limits<double>::infinity());
  Array<double> weights = filled(n, columns, 0.0);
  {
    const float* query = queries.data();
    float* residual = residuals.mutable_data();
    std::int64_t* sequence = sequences.mutable_data();
    double* distance = distances.mutable_data();
    double* weight = weights.mutable_data();
    const auto total = static_cast<std::size_t>(n);
    std::optional<py::gil_scoped_release> unlocked;
    if (total * numbers > kLockedNumbers) unlocked.emplace();
    thread_local SoftKnn soft_knn;
    const Rule rule{k, ef, sigma, alpha};
    for (std::size_t i = 0; i < total; ++i) {
      const std::size_t q = i % kSearched;
      if (q == 0) soft_knn.begin(views, query + i * dim, std::min(kSearched, total - i), rule);
      soft_knn.correct(views, q, rule, width, residual + i * width);
      std::size_t at = i * k;
      for (const Neighbour& neighbour : soft_knn.neighbours()) {
        sequence[at] = neighbour.sequence;
        distance[at] = neighbour.distance;
        weight[at] = neighbour.weight;
        ++at;
      }
    }
    for (const View& view : views) view.segment->check();
  }
  return py::make_tuple(residuals, sequences, distances, weights);
}

// A graph file with its elements in an order of locality.
Array<std::uint8_t> reordered(const Array<std::uint8_t>& graph, std::size_t dim) {
  Array<std::uint8_t> result(graph.size());
  const std::uint8_t* from = graph.data();
  std::uint8_t* to = result.mutable_data();
  const auto size = static_cast<std::size_t>(graph.size());
  const py::gil_scoped_release unlocked;
  // Labels may leave gaps: of equal rows the first alone is an element.
  const Graph read(from, size, dim, std::numeric_limits<std::uint32_t>::max(), "graph");
  Reordering(read).write(to);
  return result;
}

py::error_already_set os_error(const std::system_error& error, const std::string& path) {
  errno = error.code().value();
  PyErr_SetFromErrnoWithFilename(PyExc_OSError, path.c_str());
  return py::error_already_set();
}

}  // namespace

PYBIND11_MODULE(_kernel, m) {
  m.doc() = "Search of sealed and growing segments, and the soft k-nearest-neighbour average.";
  m.attr("instruction_set") = distance.name;
  py::register_exception<CorruptGraph>(m, "CorruptGraph", PyExc_ValueError);

  py::class_<Codec>(m, "Codec")
      .def(py::init<const std::string&, std::size_t, std::size_t>(), py::arg("kind"),
           py::arg("width"), py::arg("kept") = 0)
      .def_property_readonly("width", &Codec::width)
      .def_property_readonly("stride", &Codec::stride);
  py::class_<Segment, std::shared_ptr<Segment>>(m, "Segment")
      .def_property_readonly("rows", &Segment::rows)
      .def_property_readonly("dim", &Segment::dim)
      .def_property_readonly("dead_rows", &Segment::dead_rows)
      .def("forget", &Segment::forget, py::arg("row"))
      .def("forget_until", &Segment::forget_until, py::arg("sequence"))
      .def("lives", &Segment::lives, py::arg("row"))
      .def("find", &Segment::find, py::arg("sequence"))
      .def("sequence", &Segment::checked_sequence, py::arg("row"))
      .def("living", &Segment::living);
  py::class_<Mapping, std::shared_ptr<Mapping>>(m, "Mapping")
      .def(py::init([](const py::buffer& array, const std::string& path, std::size_t file_bytes) {
             const py::buffer_info info = array.request();
             try {
               // The array goes after the guard of its addresses, not before.
               return std::shared_ptr<Mapping>(
                   new Mapping(info.ptr, static_cast<std::size_t>(info.size * info.itemsize), path,
                               file_bytes),
                   [array](Mapping* mapping) { delete mapping; });
             } catch (const std::system_error& error) {
               throw os_error(error, path);
             }
           }),
           py::arg("array"), py::arg("path"), py::arg("file_bytes"))
      .def_property_readonly("damaged", &Mapping::damaged)
      .def_property_readonly("intact", &Mapping::intact)
      .def_property_readonly("written_ns", &Mapping::written_now)
      .def_property_readonly("descriptor", &Mapping::descriptor)
      .def("trust", &Mapping::trust, py::arg("written_ns"));
  py::class_<SharedCounter, std::shared_ptr<SharedCounter>>(m, "SharedCounter")
      .def(py::init([](const std::string& path) {
             try {
               return std::make_shared<SharedCounter>(path);
             } catch (const std::system_error& error) {
               throw os_error(error, path);
             }
           }),
           py::arg("path"))
      .def_property_readonly("value", &SharedCounter::value)
      .def_property_readonly("damaged", &SharedCounter::damaged)
      .def("add", &SharedCounter::add);
  py::class_<SketchArrays>(m, "Sketches")
      .def(py::init<Array<std::uint32_t>, Array<std::int8_t>, Array<float>>(),
           py::arg("links").noconvert(), py::arg("sketches").noconvert(),
           py::arg("grid").noconvert());
  py::class_<CopyArrays>(m, "Copies")
      .def(py::init<Array<std::uint32_t>, Array<std::uint32_t>>(), py::arg("groups").noconvert(),
           py::arg("copies").noconvert());
  py::class_<SealedSegment, Segment, std::shared_ptr<SealedSegment>>(m, "SealedSegment")
      .def(py::init<Array<std::uint8_t>, Array<std::uint8_t>, Array<float>, Array<std::int64_t>,
                    std::size_t, const Codec&, const std::string&, std::optional<SketchArrays>,
                    std::optional<CopyArrays>, std::optional<Array<std::uint32_t>>,
                    std::vector<std::shared_ptr<Mapping>>>(),
           py::arg("graph").noconvert(), py::arg("codes").noconvert(),
           py::arg("weights").noconvert(), py::arg("sequences").noconvert(), py::arg("dim"),
           py::arg("codec"), py::arg("name"), py::arg("sketches") = std::nullopt,
           py::arg("copies") = std::nullopt, py::arg("entries") = std::nullopt,
           py::arg("mappings") = std::vector<std::shared_ptr<Mapping>>())
      .def_property_readonly("damaged", &SealedSegment::damaged)
      .def_property_readonly("elements", &SealedSegment::elements)
      .def("finds", &SealedSegment::finds, py::arg("elements").noconvert(), py::arg("ef"))
      .def("check", &SealedSegment::check);
  py::class_<GrowingSegment, Segment, std::shared_ptr<GrowingSegment>>(m, "GrowingSegment")
      .def(py::init<std::size_t, std::size_t, const Codec&>(), py::arg("capacity"), py::arg("dim"),
           py::arg("codec"))
      .def_property_readonly("capacity", &GrowingSegment::capacity)
      .def("append", &GrowingSegment::append, py::arg("vectors"), py::arg("codes"),
           py::arg("weights"), py::arg("sequences"), py::arg("start") = 0)
      .def("copy_after", &GrowingSegment::copy_after, py::arg("sequence"));
  m.def("reordered", &reordered, py::arg("graph").noconvert(), py::arg("dim"));
  m.def("correct", &correct, py::arg("segments"), py::arg("queries"), py::arg("width"),
        py::arg("k"), py::arg("ef"), py::arg("sigma"), py::arg("alpha"));
}
