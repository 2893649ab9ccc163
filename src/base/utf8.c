#include "base/utf8.h"

size_t utf8_decode(struct bytes text, unsigned *ret_point)
{
    static const unsigned least[] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned char first = (unsigned char)text.data[0];
    size_t length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    if (length == 0 || length > text.length) {
        return 0;
    }
    unsigned point = length == 1 ? first : first & (0xffU >> (length + 1));
    for (size_t index = 1; index < length; index++) {
        unsigned char byte = (unsigned char)text.data[index];
        if ((byte & 0xc0) != 0x80) {
            return 0;
        }
        point = (point << 6) | (byte & 0x3f);
    }
    if (point < least[length] || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff)) {
        return 0;
    }
    *ret_point = point;
    return length;
}
