/* Turns low-resolution logits (logits8) of a segmentation model into labels of the image. C99, no dependencies. */

#ifndef ARGMAX_UPSAMPLE_H
#define ARGMAX_UPSAMPLE_H

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Resizes logits bilinearly (half-pixel centres, PyTorch's align_corners=False) and writes the class with the largest
 * logit of every pixel. Ties go to the lowest class.
 *
 * logits: [h, w, classes], row by row, with the classes of a position side by side; at most 256 classes, no NaN.
 * labels: [height, width], the result, row by row.
 */
void argmax_upsample(const float *logits, int h, int w, int classes, unsigned char *labels, int height, int width);

#ifdef __cplusplus
}
#endif

#endif
