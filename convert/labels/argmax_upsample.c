/*
 * A cell is the rectangle of pixels between the centres of four neighbouring logit positions, its corners. Inside a
 * cell a resized logit is a convex combination of the logits at the four corners. So each class stays between its
 * smallest and its largest corner, and it can win only if its largest corner reaches the bound: the largest of all
 * classes' smallest corners. In most cells one class alone reaches the bound, and the whole cell is filled with it.
 * In the other cells only the classes that reach the bound are interpolated.
 *
 * Interpolation runs along rows first and along columns second. Each step is fma(a, 1 - t, b * t) if the machine has
 * a fused multiply-add. The result is bit for bit that of PyTorch on such a machine, for images whose sides add up to
 * more than 128.
 */

#include "argmax_upsample.h"

#include <math.h>
#include <string.h>

#define MAX_CLASSES 256
#define LANES 8 /* pixels of a row, or classes, in one vector */
#define ROWS 8  /* rows of pixels that are compared at a time */
#define SLACK 2e-6f /* relative; rounding may lift an interpolated logit above its corners by a few 2^-24 of it */

#if defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(FP_FAST_FMAF)
#define MULTIPLY_ADD(a, b, c) fmaf(a, b, c)
#else
#define MULTIPLY_ADD(a, b, c) ((a) * (b) + (c))
#endif

/* Without these hints compilers unroll such short loops, and then do not recognise them as one vector operation. */
#if defined(__clang__)
#define FOR_LANES _Pragma("clang loop unroll(disable) vectorize(enable)") for (l = 0; l < LANES; l++)
#elif defined(__GNUC__)
#define FOR_LANES _Pragma("GCC unroll 1") for (l = 0; l < LANES; l++)
#else
#define FOR_LANES for (l = 0; l < LANES; l++)
#endif

typedef struct {
  int low, high;    /* the two logit positions beside a pixel, along one axis */
  float keep, part; /* weights of `low` and of `high` */
} Tap;

typedef struct {
  const float *top_left, *top_right, *bottom_left, *bottom_right; /* each points to the logits of all classes */
} Corners;

static float smaller(float a, float b) { return a < b ? a : b; }
static float larger(float a, float b) { return a > b ? a : b; }

/* Returns where `pixel` lies among `size` logit positions that are 1 / `scale` pixels apart. */
static Tap tap(int pixel, float scale, int size) {
  float position = larger(MULTIPLY_ADD(scale, (float)pixel + 0.5f, -0.5f), 0);
  Tap t;
  t.low = (int)position < size ? (int)position : size - 1;
  t.high = t.low + 1 < size ? t.low + 1 : t.low;
  t.part = smaller(position - (float)t.low, 1);
  t.keep = 1 - t.part;
  return t;
}

/* Writes the taps of the pixels that follow `first` in the same cell, at most `most`; returns their number. */
static int taps(int first, int length, float scale, int size, Tap *out, int most) {
  int n;
  for (n = 0; n < most && first + n < length; n++) {
    out[n] = tap(first + n, scale, size);
    if (out[n].low != out[0].low) break;
  }
  return n;
}

/* Writes the largest corner of every class; returns the bound, the largest of all classes' smallest corners. */
static float extremes(Corners p, int classes, float *largest) {
  float best[LANES], bound;
  int c, l;
  FOR_LANES best[l] = -INFINITY;
  for (c = 0; c + LANES <= classes; c += LANES) {
    FOR_LANES {
      float a = p.top_left[c + l], b = p.top_right[c + l], d = p.bottom_left[c + l], e = p.bottom_right[c + l];
      largest[c + l] = larger(larger(a, b), larger(d, e));
      best[l] = larger(smaller(smaller(a, b), smaller(d, e)), best[l]);
    }
  }
  for (; c < classes; c++) {
    float a = p.top_left[c], b = p.top_right[c], d = p.bottom_left[c], e = p.bottom_right[c];
    largest[c] = larger(larger(a, b), larger(d, e));
    best[0] = larger(smaller(smaller(a, b), smaller(d, e)), best[0]);
  }
  bound = best[0];
  for (l = 1; l < LANES; l++) bound = larger(best[l], bound);
  return bound;
}

/* Writes the classes that can win inside a cell, in rising order; returns their number, at least one. */
static int candidates(Corners p, int classes, int *out) {
  float largest[MAX_CLASSES];
  float bound = extremes(p, classes, largest);
  int c, n = 0;
  bound -= SLACK * fabsf(bound);
  /* No branch: every class is written, but the position advances only for candidates. */
  for (c = 0; c < classes; c++) {
    out[n] = c;
    n += !(largest[c] < bound);
  }
  return n;
}

/* Interpolates the `count` candidates in `out` at rows x columns pixels and writes the winner of each pixel. */
static void compare(Corners p, const int *out, int count, const Tap *y, int rows, const Tap *x, int columns,
                    unsigned char *labels, int stride) {
  float keep[LANES] = {0}, part[LANES] = {0}, best[ROWS][LANES];
  int winner[ROWS][LANES];
  int i, r, l;
  /* Lanes beyond `columns` are computed with weight 0 and not written. */
  for (l = 0; l < columns; l++) {
    keep[l] = x[l].keep;
    part[l] = x[l].part;
  }
  for (i = 0; i < count; i++) {
    int c = out[i];
    float a = p.top_left[c], b = p.top_right[c], d = p.bottom_left[c], e = p.bottom_right[c];
    float top[LANES], bottom[LANES];
    FOR_LANES {
      top[l] = MULTIPLY_ADD(a, keep[l], b * part[l]);
      bottom[l] = MULTIPLY_ADD(d, keep[l], e * part[l]);
    }
    for (r = 0; r < rows; r++) {
      FOR_LANES {
        float value = MULTIPLY_ADD(top[l], y[r].keep, bottom[l] * y[r].part);
        int better = i == 0 || value > best[r][l]; /* Ties go to the lowest class: candidates rise. */
        best[r][l] = better ? value : best[r][l];
        winner[r][l] = better ? c : winner[r][l];
      }
    }
  }
  for (r = 0; r < rows; r++)
    for (l = 0; l < columns; l++) labels[r * stride + l] = (unsigned char)winner[r][l];
}

void argmax_upsample(const float *logits, int h, int w, int classes, unsigned char *labels, int height, int width) {
  float y_scale = (float)h / (float)height, x_scale = (float)w / (float)width;
  Tap y[ROWS], x[LANES];
  int row, column, rows, columns, r, found[MAX_CLASSES];
  /* Walk over blocks of pixels: all pixels of a cell, or the first ROWS x LANES of those that remain in it. */
  for (row = 0; row < height; row += rows) {
    const float *top, *bottom;
    rows = taps(row, height, y_scale, h, y, ROWS);
    top = logits + (size_t)y[0].low * w * classes;
    bottom = logits + (size_t)y[0].high * w * classes;
    for (column = 0; column < width; column += columns) {
      unsigned char *corner = labels + (size_t)row * width + column;
      columns = taps(column, width, x_scale, w, x, LANES);
      size_t left = (size_t)x[0].low * classes, right = (size_t)x[0].high * classes;
      Corners p = {top + left, top + right, bottom + left, bottom + right};
      int count = candidates(p, classes, found);
      if (count > 1) {
        compare(p, found, count, y, rows, x, columns, corner, width);
      } else {
        for (r = 0; r < rows; r++) memset(corner + (size_t)r * width, found[0], columns);
      }
    }
  }
}
